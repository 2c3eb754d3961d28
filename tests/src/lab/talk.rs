//! Servers that say everything back, and conversations with them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};

use super::{Namespace, PATIENCE};

/// A TCP server on a machine that repeats what it hears, until it is dropped.
#[derive(Debug)]
pub struct EchoServer {
    listener: Arc<TcpListener>,
    served: Arc<Mutex<Vec<TcpStream>>>,
}

impl EchoServer {
    /// Listens at an address; `[::]:5432` is both families.
    #[track_caller]
    pub fn start(on: &Namespace, at: &str) -> EchoServer {
        let listener = on
            .within(|| TcpListener::bind(at))
            .unwrap_or_else(|error| panic!("nobody can listen at {at} on {}: {error}", on.name()));
        let server = EchoServer {
            listener: Arc::new(listener),
            served: Arc::default(),
        };
        let (listener, served) = (Arc::clone(&server.listener), Arc::clone(&server.served));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if let Ok(copy) = stream.try_clone() {
                    served.lock().expect("nobody panics with it").push(copy);
                }
                std::thread::spawn(move || repeat(stream));
            }
        });
        server
    }
}

fn repeat(mut stream: TcpStream) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // Shutting it down wakes accept(2).
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        for stream in self.served.lock().expect("nobody panics with it").iter() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A connection to an [`EchoServer`].
#[derive(Debug)]
pub struct Talk {
    stream: TcpStream,
    said: u64,
    heard: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Echo,
    /// Nothing in time.
    Silence,
    /// The connection is over.
    End,
}

impl Talk {
    #[track_caller]
    pub fn open(from: &Namespace, to: IpAddr, port: u16) -> Talk {
        Talk::open_within(from, to, port, PATIENCE)
    }

    /// The first SYN has to be answered: the second is sent after a second (RFC 6298, 2.1).
    #[track_caller]
    pub fn open_at_once(from: &Namespace, to: IpAddr, port: u16) -> Talk {
        Talk::open_within(from, to, port, Duration::from_millis(900))
    }

    /// To an address with its scope, as a link-local one needs.
    #[track_caller]
    pub fn open_to(from: &Namespace, to: SocketAddr) -> Talk {
        Talk::connect(from, to, PATIENCE)
    }

    #[track_caller]
    fn open_within(from: &Namespace, to: IpAddr, port: u16, patience: Duration) -> Talk {
        Talk::connect(from, SocketAddr::new(to, port), patience)
    }

    #[track_caller]
    fn connect(from: &Namespace, to: SocketAddr, patience: Duration) -> Talk {
        let stream = from
            .within(|| TcpStream::connect_timeout(&to, patience))
            .unwrap_or_else(|error| panic!("{} cannot connect to {to}: {error}", from.name()));
        stream.set_nodelay(true).expect("a socket takes options");
        Talk {
            stream,
            said: 0,
            heard: Vec::new(),
        }
    }

    pub fn local_port(&self) -> u16 {
        self.stream.local_addr().expect("it is connected").port()
    }

    /// Whether something said now comes back within the patience of a test.
    pub fn flows(&mut self) -> bool {
        self.say(PATIENCE) == Heard::Echo
    }

    /// Says something new and listens for it. What was said before and comes late is passed over.
    pub fn say(&mut self, patience: Duration) -> Heard {
        self.said += 1;
        let line = format!("{}\n", self.said);
        if self.stream.write_all(line.as_bytes()).is_err() {
            return Heard::End;
        }
        self.listen_for(&line, patience)
    }

    /// Says nothing and listens for the end.
    pub fn ends_by_itself(&mut self, patience: Duration) -> bool {
        self.listen_for("nobody says this\n", patience) == Heard::End
    }

    /// Whether a megabyte goes there and comes back whole.
    pub fn carries_a_megabyte(&mut self) -> bool {
        let sent: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
        let mut back = vec![0; sent.len()];
        let mut writer = self.stream.try_clone().expect("a socket can be copied");
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent));
            self.stream.read_exact(&mut back).is_ok() && back == sent
        })
    }

    fn listen_for(&mut self, line: &str, patience: Duration) -> Heard {
        let end = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            while let Some(at) = self.heard.iter().position(|byte| *byte == b'\n') {
                let came: Vec<u8> = self.heard.drain(..=at).collect();
                if came == line.as_bytes() {
                    return Heard::Echo;
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            let _ = self.stream.set_read_timeout(Some(left));
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End,
                Ok(length) => self.heard.extend(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
        }
    }
}
