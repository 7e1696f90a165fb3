//! Key log lines in the formats Wireshark reads: the IKEv2 decryption table and the table of ESP SAs.
//!
//! An administrator switches it on; whoever has these lines can read the traffic.
