//! The first packets of PostgreSQL's protocol: ask to log in, and hear which rule answers.
//!
//! AuthenticationOk comes before the role, its LOGIN attribute or the database is looked up (postinit.c: `InitPostgres`
//! calls `PerformAuthentication` first), and AuthenticationSASL before the password: so a rule can be probed without
//! keys, passwords or roles of users.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Connects to a server's Unix socket without waiting: a server that stands still lets its queue of connections fill,
/// and connect(2) would then wait for it without end.
///
/// # Errors
/// I/O; the queue is full.
pub fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let address = UnixAddr::new(path)?;
    match connect(socket.as_raw_fd(), &address) {
        Err(Errno::EAGAIN) => Err(io::Error::other(
            "it takes no more connections; they wait for it to answer",
        )),
        done => Ok(done?),
    }?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// What a start-up packet asks for.
#[derive(Debug, Clone, Copy)]
pub struct Startup<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// Physical replication (`replication=true`).
    pub replication: bool,
}

/// The server's first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// AuthenticationOk: the rules let this in.
    Ok,
    /// A password is asked for.
    Password(Asked),
    /// Any other authentication request, by its number.
    Other(u32),
    /// ErrorResponse. 28000 is said for a reject, for a map that does not match, and for no rule at all.
    Refused { sqlstate: String, message: String },
}

/// How a password is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Sasl,
    Md5,
    Cleartext,
}

/// Sends a start-up packet and reads the first answer.
///
/// # Errors
/// I/O, and an answer that is not PostgreSQL's.
pub fn start_up<S: Read + Write>(stream: &mut S, startup: &Startup) -> io::Result<Answer> {
    stream.write_all(&startup.packet())?;
    stream.flush()?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length);
    // The longest that makes sense here is an error message.
    let body = length
        .checked_sub(4)
        .filter(|l| *l <= 1 << 16)
        .ok_or_else(|| not_postgres(kind))?;
    let mut body = vec![0; usize::try_from(body).map_err(io::Error::other)?];
    stream.read_exact(&mut body)?;
    match kind {
        b'R' => {
            let code = body.first_chunk().ok_or_else(|| not_postgres(kind))?;
            Ok(match u32::from_be_bytes(*code) {
                0 => Answer::Ok,
                3 => Answer::Password(Asked::Cleartext),
                5 => Answer::Password(Asked::Md5),
                10 => Answer::Password(Asked::Sasl),
                other => Answer::Other(other),
            })
        }
        b'E' => Ok(refused(&body)),
        other => Err(not_postgres(other)),
    }
}

/// Asks for TLS; whether the server agrees. It never does on a Unix socket.
///
/// # Errors
/// I/O, and an answer that is not PostgreSQL's.
pub fn request_tls<S: Read + Write>(stream: &mut S) -> io::Result<bool> {
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
    stream.flush()?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    match answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        [other] => Err(not_postgres(other)),
    }
}

impl Startup<'_> {
    fn packet(&self) -> Vec<u8> {
        let mut body = 196_608_u32.to_be_bytes().to_vec(); // protocol 3.0
        let mut pairs = vec![("user", self.user), ("database", self.database)];
        if self.replication {
            pairs.push(("replication", "true"));
        }
        for text in pairs.into_iter().flat_map(|(k, v)| [k, v]) {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).expect("names are short");
        [length.to_be_bytes().to_vec(), body].concat()
    }
}

/// ErrorResponse: fields of one letter and a string each, ended by a zero.
fn refused(body: &[u8]) -> Answer {
    let field = |letter: u8| {
        body.split(|b| *b == 0)
            .find(|f| f.first() == Some(&letter))
            .map(|f| String::from_utf8_lossy(f.get(1..).unwrap_or_default()).into_owned())
            .unwrap_or_default()
    };
    Answer::Refused {
        sqlstate: field(b'C'),
        message: field(b'M'),
    }
}

fn not_postgres(kind: u8) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("an answer of type {kind:#04x} is not PostgreSQL's"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that has its answer ready.
    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(bytes: &[u8]) -> io::Result<Answer> {
        let mut script = Script(io::Cursor::new(bytes.to_vec()), Vec::new());
        let startup = Startup {
            user: "u",
            database: "d",
            replication: true,
        };
        let answer = start_up(&mut script, &startup);
        assert_eq!(
            script.1,
            b"\0\0\0\x2c\0\x03\0\0user\0u\0database\0d\0replication\0true\0\0"
        );
        answer
    }

    #[test]
    fn first_answers() {
        assert_eq!(answer(b"R\0\0\0\x08\0\0\0\0").unwrap(), Answer::Ok);
        assert_eq!(
            answer(b"R\0\0\0\x0c\0\0\0\x0aSCRA").unwrap(),
            Answer::Password(Asked::Sasl)
        );
        assert_eq!(
            answer(b"E\0\0\0\x18SFATAL\0C28000\0Mno\0\0\0").unwrap(),
            Answer::Refused {
                sqlstate: "28000".into(),
                message: "no".into()
            }
        );
    }

    // connect(2) would wait until somebody accepts.
    #[test]
    fn a_full_queue_of_connections_is_not_waited_for() {
        use nix::sys::socket::{Backlog, bind, listen};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(connect_unix(&path).is_err());
        let listener = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_unix(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert!(!waiting.is_empty());
        assert!(error.to_string().contains("no more connections"), "{error}");
    }

    // A length that would ask for memory without end, one below its own size, a body that is cut short, another protocol.
    #[test]
    fn what_is_not_postgresql() {
        for bytes in [
            b"R\xff\xff\xff\xff".as_slice(),
            b"R\0\0\0\x03",
            b"R\0\0\0\x08\0",
            b"R\0\0\0\x04",
            b"HTTP/1.1 400",
        ] {
            assert!(answer(bytes).is_err(), "{bytes:?}");
        }
    }
}
