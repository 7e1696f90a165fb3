//! Multi-point SA (draft-yamaya-ipsecme-mpsa) between built clients: they talk to each other directly, with an SA that the
//! reference gateway hands out, and by way of the gateway where that does not work.

mod direct;
mod learned;
mod meeting;
mod rollover;
