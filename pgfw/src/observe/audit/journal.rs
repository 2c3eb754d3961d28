//! The same to journald, with its fields: `journalctl PGFW_EVENT=login_refused`.
//!
//! Its own protocol (systemd's "Native Journal Protocol"): a datagram of fields, each `NAME=value` with a line break, or
//! NAME, a line break, the length and the value where the value may hold one. All of ours have the second form.

use std::os::unix::net::UnixDatagram;

use serde_json::Value;

use super::Event;

const SOCKET: &str = "/run/systemd/journal/socket";

/// Tells it, if there is one and it listens. It waits for nobody: what it does not take stands in the file.
pub(super) fn tell(event: &Event, line: &str) {
    let _not_there = send(&datagram(event, line));
}

fn send(datagram: &[u8]) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(datagram, SOCKET).map(drop)
}

fn datagram(event: &Event, line: &str) -> Vec<u8> {
    let priority = if event.is_warning() { "4" } else { "6" };
    let mut message = Vec::new();
    for (name, value) in [
        ("MESSAGE", line),
        ("PRIORITY", priority),
        ("SYSLOG_IDENTIFIER", "pgfw-audit"),
        ("PGFW_EVENT", event.name()),
    ] {
        field(&mut message, name, value);
    }
    let all: Option<Value> = serde_json::from_str(line).ok();
    for name in [
        "identity", "serial", "role", "database", "cluster", "by", "address",
    ] {
        if let Some(value) = all.as_ref().and_then(|all| all.get(name)?.as_str()) {
            field(&mut message, &format!("PGFW_{}", name.to_uppercase()), value);
        }
    }
    message
}

fn field(message: &mut Vec<u8>, name: &str, value: &str) {
    message.extend_from_slice(name.as_bytes());
    message.push(b'\n');
    message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    message.extend_from_slice(value.as_bytes());
    message.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_a_field() {
        let event = Event::RecordsLost {
            cluster: Some("a\nPRIORITY=0\n".into()),
            records: None,
            reason: "x".into(),
        };
        let sent = datagram(&event, &super::super::line(&event, 0));
        let mut rest = sent.as_slice();
        let mut fields = Vec::new();
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(*rest[end + 1..].first_chunk().unwrap()) as usize;
            let value = String::from_utf8(rest[end + 9..][..length].to_vec()).unwrap();
            rest = &rest[end + 9 + length + 1..];
            fields.push((name, value));
        }
        let of = |name: &str| {
            fields
                .iter()
                .filter(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("PRIORITY"), ["4"]);
        assert_eq!(of("PGFW_CLUSTER"), ["a\nPRIORITY=0\n"]);
        assert_eq!(of("PGFW_EVENT"), ["records_lost"]);
    }
}
