use serde_json::json;

use super::super::audit::Event;
use super::*;

struct Server {
    logins: Logins,
    told: Vec<Event>,
}

impl Server {
    fn new() -> Server {
        Server {
            logins: Logins::default(),
            told: Vec::new(),
        }
    }

    /// One line of the session `id`, at so many seconds.
    fn says(&mut self, id: &str, second: u32, message: &str, more: serde_json::Value) {
        let mut line = json!({
            "timestamp": format!("2026-11-26 20:00:{second:02}.000 UTC"), "pid": 7, "session_id": id,
            "remote_host": "10.20.0.10", "remote_port": 40000, "error_severity": "LOG", "ps": "authentication",
            "message": message, "backend_type": "client backend",
        });
        for (key, value) in more.as_object().unwrap() {
            line[key] = value.clone();
        }
        let told = self.logins.line("main", line.to_string().as_bytes());
        self.told.extend(told.into_iter().map(|t| t.event));
    }

    fn settles(&mut self) {
        let told = self.logins.settle("main", i64::MAX);
        self.told.extend(told.into_iter().map(|t| t.event));
    }

    fn names(&self) -> Vec<&'static str> {
        self.told.iter().map(Event::name).collect()
    }
}

const ALICE: &str = "connection authenticated: identity=\"CN=alice\" method=cert (/etc/pg_hba.conf:7)";

#[test]
fn a_login_is_a_success_once_nothing_follows_and_ends_once() {
    let mut server = Server::new();
    server.says(
        "a",
        1,
        "connection received: host=10.20.0.10 port=40000",
        json!({}),
    );
    server.says("a", 1, ALICE, json!({ "user": "alice", "dbname": "app" }));
    server.says(
        "a",
        1,
        "connection authorized: user=alice database=app",
        json!({ "user": "alice", "dbname": "app" }),
    );
    assert!(server.told.is_empty() && server.logins.unsettled());
    server.settles();
    server.logins.count(|_| Some((10, 20)));
    server.logins.know(7, "ab", None);
    server.says(
        "a",
        9,
        "disconnection: session time: 0:00:08.000 user=alice",
        json!({ "ps": "idle" }),
    );
    server.says(
        "a",
        9,
        "disconnection: session time: 0:00:08.000 user=alice",
        json!({ "ps": "idle" }),
    );
    assert_eq!(server.names(), ["connection_opened", "connection_closed"]);
    let Event::ConnectionClosed {
        client,
        seconds,
        bytes_sent,
        bytes_received,
        cluster: _,
    } = &server.told[1]
    else {
        panic!()
    };
    assert_eq!(
        (*seconds, *bytes_sent, *bytes_received),
        (8.0, Some(10), Some(20))
    );
    assert_eq!(client.identity.as_deref(), Some("alice"));
    assert_eq!(client.certificate.as_deref(), Some("CN=alice"));
    assert_eq!(
        (client.role.as_deref(), client.serial.as_deref()),
        (Some("alice"), Some("ab"))
    );
}

#[test]
fn p42_authenticated_and_authorized_are_no_success_by_themselves() {
    // The last line, after certificate and, in the second, role were taken.
    let rows = [
        (
            false,
            "certificate authentication failed for user \"bob\"",
            "authentication",
        ),
        (true, "role \"bob\" does not exist", "startup"),
    ];
    for (authorized, words, ps) in rows {
        let mut server = Server::new();
        server.says("a", 1, ALICE, json!({ "user": "bob", "dbname": "app" }));
        if authorized {
            server.says("a", 1, "connection authorized: user=bob database=app", json!({}));
        }
        server.says(
            "a",
            1,
            words,
            json!({ "error_severity": "FATAL", "state_code": "28000", "ps": ps }),
        );
        server.settles();
        let [
            Event::LoginRefused {
                client,
                reason,
                code,
                cluster: _,
            },
        ] = server.told.as_slice()
        else {
            panic!("{:?}", server.told)
        };
        assert_eq!(client.certificate.as_deref(), Some("CN=alice"));
        assert_eq!(client.role.as_deref(), Some("bob"));
        assert_eq!((reason.as_str(), code.as_deref()), (words, Some("28000")));
    }
}

/// A session writes to the log what it likes, but not as the server.
#[test]
fn p43_a_session_forges_nothing() {
    let mut server = Server::new();
    server.says("a", 1, ALICE, json!({ "user": "alice" }));
    server.says("a", 1, "connection authorized: user=alice", json!({}));
    let context = json!({ "ps": "DO", "context": "PL/pgSQL function inline_code_block line 1 at RAISE" });
    for words in [
        "connection authenticated: identity=\"CN=admin\" method=cert (x:1)",
        "connection authorized: user=admin",
        "disconnection: session time: 0:00:01.000",
        "database system is ready to accept connections",
    ] {
        server.says("a", 2, words, context.clone());
    }
    server.settles();
    server.says(
        "a",
        3,
        "connection authenticated: identity=\"CN=admin\" method=cert (x:1)",
        json!({ "ps": "idle" }),
    );
    server.says(
        "a",
        4,
        "terminating connection due to administrator command",
        json!({ "error_severity": "FATAL", "ps": "idle" }),
    );
    server.says(
        "a",
        5,
        "disconnection: session time: 0:00:04.000",
        json!({ "ps": "idle" }),
    );
    assert_eq!(server.names(), ["connection_opened", "connection_closed"]);
    let Event::ConnectionClosed { client, .. } = &server.told[1] else {
        panic!()
    };
    assert_eq!(client.certificate.as_deref(), Some("CN=alice"));
}

#[test]
fn p43_names_may_hold_anything() {
    // the identity in the line, certificate, identity
    let rows = [
        (
            "CN=x\" method=trust (y:1) identity=\"CN=admin",
            "CN=x\" method=trust (y:1) identity=\"CN=admin",
        ),
        (
            "CN=a\nconnection authorized: role admin",
            "a\nconnection authorized: role admin",
        ),
        ("CN=a=b", "CN=a=b"),
        ("CN=admin,O=other", "CN=admin,O=other"),
    ];
    for (dn, identity) in rows {
        let mut server = Server::new();
        let line = format!("connection authenticated: identity=\"{dn}\" method=cert (/etc/pg_hba.conf:7)");
        server.says("a", 1, &line, json!({ "user": "u\" identity=\"admin" }));
        server.says("a", 1, "no", json!({ "error_severity": "FATAL" }));
        let [Event::LoginRefused { client, .. }] = server.told.as_slice() else {
            panic!()
        };
        assert_eq!(client.certificate.as_deref(), Some(dn));
        assert_eq!(client.identity.as_deref(), Some(identity));
        assert_eq!(client.method.as_deref(), Some("cert"));
        assert_eq!(client.role.as_deref(), Some("u\" identity=\"admin"));
    }
}

#[test]
fn a_server_that_starts_anew_has_ended_everybody() {
    let mut server = Server::new();
    server.says(
        "a",
        1,
        "connection authorized: user=alice",
        json!({ "user": "alice" }),
    );
    server.settles();
    server.says(
        "p",
        5,
        "database system is ready to accept connections",
        json!({ "backend_type": "postmaster" }),
    );
    assert_eq!(server.names(), ["connection_opened", "connection_closed"]);
}

#[test]
fn a_handshake_that_failed_for_its_certificate_is_a_refusal() {
    let mut server = Server::new();
    server.says(
        "a",
        1,
        "connection received: host=10.20.0.10 port=40000",
        json!({}),
    );
    server.says("a", 1, "could not accept SSL connection: EOF detected", json!({}));
    server.says(
        "a",
        1,
        "could not accept SSL connection: certificate revoked",
        json!({ "detail": "serial number 7" }),
    );
    let [Event::LoginRefused { client, reason, .. }] = server.told.as_slice() else {
        panic!()
    };
    assert_eq!(
        reason,
        "could not accept SSL connection: certificate revoked: serial number 7"
    );
    assert!(client.address.is_some() && client.certificate.is_none());
}

/// Of what is not a certificate's, the name is its user's to choose.
#[test]
fn p43_a_role_that_is_called_like_a_subject_has_no_certificate() {
    for (what, method) in [
        ("identity", "scram-sha-256"),
        ("identity", "peer"),
        ("user", "trust"),
    ] {
        let mut server = Server::new();
        let line =
            format!("connection authenticated: {what}=\"CN=admin\" method={method} (/etc/pg_hba.conf:7)");
        server.says("a", 1, &line, json!({ "user": "CN=admin" }));
        server.says("a", 1, "connection authorized: user=CN=admin", json!({}));
        server.settles();
        let [Event::ConnectionOpened { client, .. }] = server.told.as_slice() else {
            panic!("{:?}", server.told)
        };
        assert_eq!(client.method.as_deref(), Some(method));
        assert_eq!((&client.certificate, &client.identity), (&None, &None));
        assert!(server.logins.without_serial().is_empty());
    }
}

/// A standby whose primary is away says this every five seconds, with neither client nor `ps`.
#[test]
fn p42_what_is_no_client_of_the_servers_is_no_login() {
    for backend in ["walreceiver", "autovacuum worker", "background worker", "startup"] {
        let mut server = Server::new();
        let more = json!({
            "remote_host": null, "remote_port": null, "ps": null, "error_severity": "FATAL", "backend_type": backend,
            "state_code": "08006",
        });
        server.says(
            "w",
            1,
            "could not connect to the primary server: connection refused",
            more,
        );
        assert_eq!(server.names(), Vec::<&str>::new(), "{backend}");
    }
}

/// `[unknown]` is what the plain log writes for no name; here it is a name.
#[test]
fn p42_a_role_of_any_name_is_named() {
    let mut server = Server::new();
    let asked = json!({ "user": "[unknown]", "dbname": "[unknown]" });
    server.says("a", 1, "connection authorized: user=[unknown]", asked);
    server.settles();
    let [Event::ConnectionOpened { client, .. }] = server.told.as_slice() else {
        panic!("{:?}", server.told)
    };
    assert_eq!(client.role.as_deref(), Some("[unknown]"));
    assert_eq!(client.database.as_deref(), Some("[unknown]"));
}

/// Health checks and scans connect and go, and the server says nothing of their end.
#[test]
fn who_never_logs_in_is_forgotten() {
    let mut logins = Logins::default();
    let line = |n: i64, message: &str| {
        let at = time::OffsetDateTime::from_unix_timestamp(1_795_723_521 + n).unwrap();
        let format =
            time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second].000 UTC");
        json!({
            "timestamp": at.format(format).unwrap(), "pid": n, "session_id": n.to_string(), "remote_host": "10.20.0.10",
            "error_severity": "LOG", "message": message,
        })
        .to_string()
    };
    let count = 5_000;
    for n in 0..count {
        logins.line(
            "main",
            line(n, "connection received: host=10.20.0.10 port=1").as_bytes(),
        );
        let now_ms = (1_795_723_521 + n) * 1_000;
        assert!(logins.settle("main", now_ms).is_empty());
        // The oldest that may still log in is ten minutes old.
        let kept = i64::try_from(logins.sessions.len()).unwrap();
        assert!(kept >= (n + 1).min(600) && kept <= 700, "{kept} after {n}");
    }
    logins.line("main", line(count, "connection authorized: user=a").as_bytes());
    let much_later = (1_795_723_521 + 10 * count) * 1_000;
    assert_eq!(logins.settle("main", much_later).len(), 1, "who is in stays");
    assert_eq!(logins.sessions.len(), 1);
}

/// A process's number that is given again before the end of the former session was read.
#[test]
fn p40_a_serial_is_of_the_session_it_was_asked_for() {
    let mut server = Server::new();
    for (id, serial) in [("a", "aa"), ("b", "bb")] {
        server.says(id, 1, ALICE, json!({ "user": "alice" }));
        server.says(id, 1, "connection authorized: user=alice", json!({}));
        server.logins.know(7, serial, Some("alice"));
    }
    server.says("p", 1, "connection authorized: user=password", json!({}));
    server.logins.know(7, "cc", Some("eve"));
    server.settles();
    let of: Vec<_> = server
        .told
        .iter()
        .map(|event| {
            let Event::ConnectionOpened { client, .. } = event else {
                panic!("{event:?}")
            };
            client.serial.as_deref()
        })
        .collect();
    assert_eq!(of, [Some("aa"), Some("bb"), None]);
}
