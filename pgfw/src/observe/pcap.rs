//! The capture file format of libpcap (pcap-savefile(5)): a header of 24 bytes, then records of 16 bytes and a packet.

use std::io::{self, Read, Write};

use crate::failure::{Code, Explain};

/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The section header of pcapng, in both byte orders.
const PCAPNG: u32 = 0x0a0d_0d0a;

/// MAXIMUM_SNAPLEN of libpcap: a longer record is no record.
const LONGEST: u32 = 262_144;

/// One packet of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Since 1970.
    pub nanoseconds: i128,
    /// Of the whole frame.
    pub length: u32,
    /// As much of it as was captured.
    pub bytes: Vec<u8>,
}

/// Writes packets.
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// # Errors
    /// As writing fails.
    pub fn new(mut to: W) -> io::Result<Writer<W>> {
        to.write_all(&NANOSECONDS.to_ne_bytes())?;
        // Version 2.4, two words that are always zero, the longest packet, the link type.
        to.write_all(&2_u16.to_ne_bytes())?;
        to.write_all(&4_u16.to_ne_bytes())?;
        to.write_all(&[0; 8])?;
        to.write_all(&LONGEST.to_ne_bytes())?;
        to.write_all(&ETHERNET.to_ne_bytes())?;
        to.flush()?;
        Ok(Writer(to))
    }

    /// # Errors
    /// As writing fails.
    pub fn packet(&mut self, packet: &Packet) -> io::Result<()> {
        let second = 1_000_000_000;
        let word = |value: i128| u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes();
        let captured = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
        let mut record = Vec::with_capacity(16 + packet.bytes.len());
        record.extend(word(packet.nanoseconds.div_euclid(second)));
        record.extend(word(packet.nanoseconds.rem_euclid(second)));
        record.extend(captured.to_ne_bytes());
        record.extend(packet.length.max(captured).to_ne_bytes());
        record.extend(&packet.bytes);
        self.0.write_all(&record)
    }

    /// Hands what is written to whoever reads the file meanwhile.
    ///
    /// # Errors
    /// As writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Reads packets, one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    /// The file was written by a machine of the other byte order.
    swapped: bool,
    /// Of a second's fraction.
    unit: i128,
}

impl<R: Read> Reader<R> {
    /// # Errors
    /// What is no capture file, or one of frames without Ethernet header.
    pub fn new(mut from: R) -> Result<Reader<R>, PcapError> {
        let mut header = [0; 24];
        from.read_exact(&mut header).map_err(short)?;
        let [a, b, c, d, ..] = header;
        let magic = u32::from_ne_bytes([a, b, c, d]);
        let (swapped, unit) = match (magic, magic.swap_bytes()) {
            (MICROSECONDS, _) => (false, 1_000),
            (NANOSECONDS, _) => (false, 1),
            (_, MICROSECONDS) => (true, 1_000),
            (_, NANOSECONDS) => (true, 1),
            (PCAPNG, _) => return Err(PcapError::NextGeneration),
            (_, _) => return Err(PcapError::Format),
        };
        let reader = Reader { from, swapped, unit };
        // The upper bits say whether frames end in a checksum.
        match reader.word(&header, 20) & 0xffff {
            ETHERNET => Ok(reader),
            link => Err(PcapError::Link { link }),
        }
    }

    /// # Errors
    /// A file that ends within a packet.
    pub fn packet(&mut self) -> Result<Option<Packet>, PcapError> {
        let mut header = [0; 16];
        match self.from.read(&mut header[..1]).map_err(short)? {
            0 => return Ok(None),
            _ => self.from.read_exact(&mut header[1..]).map_err(short)?,
        }
        let captured = self.word(&header, 8);
        if captured > LONGEST {
            return Err(PcapError::Format);
        }
        let mut bytes = vec![0; captured as usize];
        self.from.read_exact(&mut bytes).map_err(short)?;
        Ok(Some(Packet {
            nanoseconds: i128::from(self.word(&header, 0)) * 1_000_000_000
                + i128::from(self.word(&header, 4)) * self.unit,
            length: self.word(&header, 12).max(captured),
            bytes,
        }))
    }

    fn word(&self, header: &[u8], at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        let word = u32::from_ne_bytes(bytes);
        if self.swapped { word.swap_bytes() } else { word }
    }
}

fn short(source: io::Error) -> PcapError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        PcapError::Short
    } else {
        PcapError::Read { source }
    }
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    #[error("the capture file cannot be read")]
    Read { source: io::Error },
    #[error("the capture file ends within a header or a packet")]
    Short,
    #[error("the file is no capture in the format of libpcap")]
    Format,
    #[error("the capture is in the format pcapng")]
    NextGeneration,
    #[error("the capture's packets have no Ethernet header (link type {link})")]
    Link { link: u32 },
}

impl Explain for PcapError {
    fn code(&self) -> Code {
        Code::Invalid
    }

    fn remedy(&self) -> String {
        match self {
            PcapError::Read { source: _ } => "Look at the file's path and mode.".into(),
            PcapError::Short => "Stop the program that writes it first, or capture again.".into(),
            PcapError::Format => "Capture with `tcpdump -i INTERFACE -w FILE`.".into(),
            PcapError::NextGeneration => "Convert it with: editcap -F pcap FILE NEW".into(),
            PcapError::Link { link: _ } => {
                "Capture on one Ethernet interface, not on `any`: tcpdump -i eth0 -w FILE.".into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(fraction: i128, bytes: &[u8]) -> Packet {
        Packet {
            nanoseconds: 1_700_000_000_000_000_000 + fraction,
            length: 1_400,
            bytes: bytes.to_vec(),
        }
    }

    fn all(file: &[u8]) -> Result<Vec<Packet>, PcapError> {
        let mut reader = Reader::new(file)?;
        std::iter::from_fn(|| reader.packet().transpose()).collect()
    }

    #[test]
    fn packets_go_there_and_back() {
        let packets = [packet(1, &[1; 60]), packet(999_999_999, &[2; 128])];
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).expect("a header");
        for packet in &packets {
            writer.packet(packet).expect("a record");
        }
        assert_eq!(all(&file).expect("packets"), packets);
        assert!(matches!(all(&file[..file.len() - 1]), Err(PcapError::Short)));
        assert!(matches!(all(&file[..30]), Err(PcapError::Short)));
    }

    #[test]
    fn the_other_byte_order_and_microseconds_are_understood() {
        let mut file = Vec::new();
        for word in [
            MICROSECONDS,
            0x0002_0004,
            0,
            0,
            65_535,
            ETHERNET,
            1_700_000_000,
            7,
            3,
            9,
        ] {
            file.extend(word.swap_bytes().to_ne_bytes());
        }
        file.extend([1, 2, 3]);
        let found = all(&file).expect("packets");
        assert_eq!(
            found,
            [Packet {
                length: 9,
                ..packet(7_000, &[1, 2, 3])
            }]
        );
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let mut file = [0; 24];
        assert!(matches!(all(&file), Err(PcapError::Format)));
        file[..4].copy_from_slice(&PCAPNG.to_ne_bytes());
        assert!(matches!(all(&file), Err(PcapError::NextGeneration)));
        file[..4].copy_from_slice(&MICROSECONDS.to_ne_bytes());
        file[20..].copy_from_slice(&113_u32.to_ne_bytes());
        assert!(matches!(all(&file), Err(PcapError::Link { link: 113 })));
        assert!(matches!(all(&file[..9]), Err(PcapError::Short)));
    }
}
