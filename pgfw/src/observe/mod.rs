//! Looking at packets and policies: frames that are asked about or were dropped, and the files that hold them.

pub mod frame;
pub mod packet;
pub mod pcap;
