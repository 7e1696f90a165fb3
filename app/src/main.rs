//! The window and the tray.

fn main() {}
