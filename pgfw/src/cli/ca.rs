//! `pgfw ca init | show | rotate`: the two authorities.

use std::process::ExitCode;

use clap::Subcommand;

use super::ca_rotate::{Rotate, words};
use super::passphrase::Asked;
use super::{Context, output};
use crate::config::Config;
use crate::failure::Failure;
use crate::ledger::types::Authority;
use crate::ops::rotation::{GenerationStatus, generations};
use crate::ops::{Engine, requester};
use crate::pki::{AuthorityInfo, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Make the server authority and the client authority.
    Init,
    /// Show both authorities, every generation that is there and what it does.
    Show,
    /// Put the keys of all authorities under the passphrase that pki.key_passphrase_credential names.
    Encrypt,
    /// Write the keys of all authorities in the clear.
    Decrypt,
    /// Replace an authority by a new generation, with an overlap in which both count.
    ///
    /// Client authority: `start` makes the new one, has every server trust both and prove it, and lets it sign; clients get
    /// new certificates while the old ones count; `finish` ends that.
    ///
    /// Server authority: `start` makes the new one, and bundles hold both roots from then on; once clients have those,
    /// `switch` has servers serve what the new one signs, and `finish` takes the old root out.
    ///
    /// `abort` goes back at any time before `finish`. Each can be said again after a crash and goes on from there.
    #[command(subcommand)]
    Rotate(Rotate),
}

impl Ca {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.require_root("ca")?;
        let who = requester(nix::unistd::getuid().as_raw());
        match self {
            Ca::Init => {
                let infos = context.unlocked(Asked::Anew, || Engine::open(&context.paths)?.ca_init(&who))?;
                if context.json {
                    output::json(&infos);
                } else {
                    infos.iter().for_each(print);
                }
            }
            Ca::Encrypt => return super::ca_keys::run(context, true),
            Ca::Decrypt => return super::ca_keys::run(context, false),
            Ca::Show => {
                let store = Store::new(Config::read(&context.paths.config)?.pki.directory);
                let mut all = Vec::new();
                for authority in Authority::ALL {
                    if !store.authorities(authority)?.is_empty() {
                        all.extend(generations(&store, authority)?);
                    }
                }
                if all.is_empty() {
                    return Err(Failure::new(
                        crate::failure::Code::NotFound,
                        format!("there is no authority in {}", store.directory().display()),
                        "Make both with: pgfw ca init",
                    ));
                }
                if context.json {
                    output::json(&all);
                } else {
                    for GenerationStatus { info, role } in &all {
                        print(info);
                        println!("  role         {}", words(*role));
                    }
                }
            }
            Ca::Rotate(rotate) => return rotate.run(context, &who),
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
