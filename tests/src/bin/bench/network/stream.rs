//! One TCP stream from outside into the host.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::generator::Ahead;
use super::{HOST, Link};
use crate::machine::Pinned;

/// Open to the world, whoever filters.
const PORT: u16 = 22;

/// As much as an application of some ambition hands over at once.
const CHUNK: usize = 128 * 1024;

/// Gigabits a second of payload, sender and receiver on this core: so nothing that a filter takes hides behind the other
/// end's work.
pub(crate) fn gigabits(link: &Link, core: usize, length: Duration) -> f64 {
    let to = SocketAddr::new(HOST, PORT);
    let listener = link.host.within(|| TcpListener::bind(to)).expect("a server");
    let (received, spent) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let _core = Pinned::to(core);
            let _ahead = Ahead::of_all();
            let (stream, _) = listener.accept().expect("a connection");
            receive(stream)
        });
        link.outside.within(|| {
            let _core = Pinned::to(core);
            let _ahead = Ahead::of_all();
            send(TcpStream::connect(to).expect("the port is open"), length);
        });
        receiver.join().expect("a receiver")
    });
    received as f64 * 8.0 / spent.as_nanos() as f64
}

fn receive(mut stream: TcpStream) -> (u64, Duration) {
    let mut buffer = vec![0; CHUNK];
    let start = Instant::now();
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).expect("a stream") {
            0 => return (received, start.elapsed()),
            length => received += length as u64,
        }
    }
}

fn send(mut stream: TcpStream, length: Duration) {
    let chunk = vec![0x5a; CHUNK];
    let start = Instant::now();
    while start.elapsed() < length {
        stream.write_all(&chunk).expect("a stream");
    }
    stream.shutdown(Shutdown::Write).expect("an end");
}
