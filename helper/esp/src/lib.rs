//! ESP and its UDP encapsulation, one packet at a time.
