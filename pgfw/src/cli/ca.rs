//! `pgfw ca init`, `ca show`: the two authorities.

use std::process::ExitCode;

use clap::Subcommand;

use super::passphrase::Asked;
use super::{Context, output};
use crate::config::Config;
use crate::failure::Failure;
use crate::ledger::types::Authority;
use crate::ops::{Engine, requester};
use crate::pki::{AuthorityInfo, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Make the server authority and the client authority.
    Init,
    /// Show both authorities.
    Show,
    /// Put the keys of all authorities under the passphrase that pki.key_passphrase_credential names.
    Encrypt,
    /// Write the keys of all authorities in the clear.
    Decrypt,
}

impl Ca {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("ca")?;
        let infos = match self {
            Ca::Init => {
                let who = requester(nix::unistd::getuid().as_raw());
                context.unlocked(Asked::Anew, || Engine::open(&context.paths)?.ca_init(&who))?
            }
            Ca::Encrypt => return super::ca_keys::run(context, true),
            Ca::Decrypt => return super::ca_keys::run(context, false),
            Ca::Show => {
                let store = Store::new(Config::read(&context.paths.config)?.pki.directory);
                let mut all = Vec::new();
                for authority in Authority::ALL {
                    all.extend(store.authorities(authority)?);
                }
                if all.is_empty() {
                    return Err(Failure::new(
                        crate::failure::Code::NotFound,
                        format!("there is no authority in {}", store.directory().display()),
                        "Make both with: pgfw ca init",
                    ));
                }
                all
            }
        };
        if context.json {
            output::json(&infos);
        } else {
            infos.iter().for_each(print);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(info: &AuthorityInfo) {
    println!("{} authority, generation {}", info.authority, info.generation);
    println!("  subject      {}", info.subject_dn);
    println!("  valid until  {}", info.not_after.rfc3339());
    println!("  fingerprint  {}", info.fingerprint);
    println!("  certificate  {}", info.certificate.display());
}
