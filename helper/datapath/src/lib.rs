//! The packet pump between TUN and UDP sockets.
