//! One whole connection without I/O.
