//! `[gate]`: where a certificate opens an address.

use super::raw;
use super::values::File;
use super::*;

impl File<'_> {
    pub(super) fn gate(&self, raw: raw::Gate) -> Result<Gate, ConfigError> {
        let raw::Gate {
            listen,
            allow,
            lease,
            certificate_ttl,
        } = raw;
        let address = match listen {
            None => SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            Some(listen) => {
                let address: Result<SocketAddr, _> = listen.as_ref().parse();
                address.ok().filter(|a| a.port() != 0).ok_or_else(|| {
                    self.value(
                        &listen,
                        "gate.listen",
                        format!("`{}` is not an address with a port", listen.as_ref()),
                        "Write \"0.0.0.0:5430\" for IPv4, \"[::]:5430\" for both families, or one address of this host.",
                    )
                })?
            }
        };
        let allow = match allow {
            Some(nets) => self.networks(nets, "gate.allow")?,
            None => vec![
                "0.0.0.0/0".parse().expect("a network"),
                "::/0".parse().expect("a network"),
            ],
        };
        Ok(Gate {
            listen: address,
            allow,
            lease: self.duration(lease, "gate.lease", "8h")?,
            certificate_ttl: self.duration(certificate_ttl, "gate.certificate_ttl", "24h")?,
        })
    }
}

const DEFAULT_PORT: u16 = 5430;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::failure::Failure;

    const HOST: &str = "[firewall]\ninterfaces = [\"eth0\"]\n";

    fn parse(more: &str) -> Result<Config, Failure> {
        let text = format!("{HOST}{more}\n");
        Ok(Config::parse(&text, Path::new("/etc/pgfw/pgfw.toml"))?)
    }

    #[test]
    fn a_gate_is_asked_for_and_has_defaults() {
        assert_eq!(parse("").expect("right").gate, None);
        let gate = parse("[gate]").expect("right").gate.expect("a gate");
        assert_eq!(gate.listen.to_string(), "0.0.0.0:5430");
        assert_eq!(gate.allow.len(), 2);
        assert_eq!(
            (gate.lease.as_secs(), gate.certificate_ttl.as_secs()),
            (28_800, 86_400)
        );
    }

    // What is appended, and what the message and the remedy must say.
    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, words, remedy) in [
            (
                "[gate]\nlisten = \"5430\"",
                ["pgfw.toml:4", "gate.listen"],
                "[::]:5430",
            ),
            (
                "[gate]\nlisten = \"0.0.0.0:0\"",
                ["pgfw.toml:4", "gate.listen"],
                "0.0.0.0:5430",
            ),
            ("[gate]\nlease = \"5s\"", ["pgfw.toml:4", "gate.lease"], "1m"),
            (
                "[gate]\nallow = [\"10.0.0.1/8\"]",
                ["gate.allow", "host bits"],
                "10.0.0.0/8",
            ),
            (
                "[gate]\n[[postgres]]\nname = \"main\"\ncluster = \"15/main\"\nport = 5430",
                ["5430", "gate"],
                "ports of its own",
            ),
            (
                "[gate]\n[[service]]\nname = \"gate\"\nports = [\"80\"]",
                ["gate", "two services"],
                "name of its own",
            ),
        ] {
            let failure = parse(text).expect_err(text);
            for word in words {
                assert!(failure.message.contains(word), "{word}: {failure}");
            }
            assert!(failure.remedy.contains(remedy), "{remedy}: {failure}");
        }
        // Without a gate its name is anybody's, as it was.
        parse("[[service]]\nname = \"gate\"\nports = [\"80\"]").expect("right");
    }
}
