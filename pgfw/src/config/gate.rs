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
        let address: Result<SocketAddr, _> = listen.as_ref().parse();
        let address = address.ok().filter(|a| a.port() != 0).ok_or_else(|| {
            self.value(
                &listen,
                "gate.listen",
                format!("`{}` is not an address with a port", listen.as_ref()),
                "Write \"0.0.0.0:5430\" for IPv4, \"[::]:5430\" for both families, or one address of this host.",
            )
        })?;
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
