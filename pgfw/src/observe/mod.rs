//! Looking at what happens: frames that are asked about or were dropped, the files that hold them, who logs in, and the
//! audit log.

pub mod audit;
pub mod frame;
pub mod packet;
pub mod pcap;
pub mod server_log;
