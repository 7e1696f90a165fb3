//! Tests of the wire layer as a whole: what is emitted is parsed back, whatever it is; bytes derived by hand from the
//! documents; and hostile input.

mod conformance;
mod golden;
mod hostile;
mod round_trip;
mod strategies;
