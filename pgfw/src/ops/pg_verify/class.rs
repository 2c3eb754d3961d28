//! Kinds of disagreement, and what each means.

use serde::{Deserialize, Serialize};

/// What can be wrong between filter and rules, or with the files of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    NoFilter,
    UncoveredInterface,
    Listening,
    NoListener,
    NoRule,
    CannotArrive,
    Shadowed,
    IdleReject,
    Plaintext,
    Drift,
    Overridden,
    UnfitForRestart,
}

impl Class {
    pub const ALL: [Class; 12] = [
        Class::NoFilter,
        Class::UncoveredInterface,
        Class::Listening,
        Class::NoListener,
        Class::NoRule,
        Class::CannotArrive,
        Class::Shadowed,
        Class::IdleReject,
        Class::Plaintext,
        Class::Drift,
        Class::Overridden,
        Class::UnfitForRestart,
    ];

    /// A few words.
    pub fn title(self) -> &'static str {
        match self {
            Class::NoFilter => "no filter",
            Class::UncoveredInterface => "an interface without a policy",
            Class::Listening => "listens elsewhere than pgfw.toml says",
            Class::NoListener => "addresses from which nothing that listens is reached",
            Class::NoRule => "admitted, and no rule",
            Class::CannotArrive => "rules whose addresses cannot arrive",
            Class::Shadowed => "rules that earlier ones shadow",
            Class::IdleReject => "rejects that nothing reaches",
            Class::Plaintext => "plaintext beyond what a login asks for",
            Class::Drift => "changed by hand",
            Class::Overridden => "overridden elsewhere",
            Class::UnfitForRestart => "unfit for the next restart",
        }
    }

    /// One sentence for the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Class::NoFilter => {
                "No policy judges packets, or it drops nothing (`mode = \"audit\"`): the rules stand alone."
            }
            Class::UncoveredInterface => {
                "The server listens on an interface on which no policy of this pgfw stands."
            }
            Class::Listening => {
                "The server listens on more addresses than `listen_addresses` of pgfw.toml says, or on fewer: also where one is not there."
            }
            Class::NoListener => {
                "A rule is for addresses, or the filter admits some, from which no address that the server listens on is reached."
            }
            Class::NoRule => "The filter admits addresses, and no rule lets anybody in from there.",
            Class::CannotArrive => "A rule is for addresses of which the filter admits none.",
            Class::Shadowed => "Whatever a rule is for, earlier ones decide.",
            Class::IdleReject => {
                "The same of a reject, or its addresses cannot arrive; rejects of everything are not meant."
            }
            Class::Plaintext => {
                "A rule lets somebody in without TLS whom no `[[login]]` with `plaintext` names."
            }
            Class::Drift => {
                "A file that pgfw wrote has other content, or a link of the server leads elsewhere."
            }
            Class::Overridden => {
                "A setting of pgfw's does not count, since another file or the command line has the last word."
            }
            Class::UnfitForRestart => {
                "The server would not start with what is in place, or not with the rules that it has now."
            }
        }
    }

    /// What to do about it, one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Class::NoFilter => "`pgfw status` says why; confirm the policy, or start the service.",
            Class::UncoveredInterface => {
                "Name it in `firewall.interfaces` and `pgfw reload`, or narrow `listen_addresses`."
            }
            Class::Listening => {
                "`pgfw pg apply` and restart the server; give the host the address that is missing (docs/audit.md, Addresses), or correct pgfw.toml."
            }
            Class::NoListener => {
                "Add an address of that family, or one beyond loopback, to `listen_addresses`, or take the networks out of pgfw.toml."
            }
            Class::NoRule => {
                "Take the network out of `allow` or `pgfw remove` it, or give it an `[[identity]]` or `[[login]]`."
            }
            Class::CannotArrive => {
                "Issue the identity's certificate, end the deny, or take the networks out; `pgfw check` names what closes them."
            }
            Class::Shadowed => "Remove the rule, or put it before the one that is named.",
            Class::IdleReject => "Remove it.",
            Class::Plaintext => "Make it `hostssl`, or say `plaintext = \"loopback\"` in its `[[login]]`.",
            Class::Drift => "Carry over what was meant into pgfw.toml, then `pgfw pg apply --replace-edits`.",
            Class::Overridden => {
                "Take it out of the file that is named (`alter system reset` for postgresql.auto.conf)."
            }
            Class::UnfitForRestart => "Correct what is named before the server restarts.",
        }
    }

    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::NoFilter => "no_filter",
            Class::UncoveredInterface => "uncovered_interface",
            Class::Listening => "listening",
            Class::NoListener => "no_listener",
            Class::NoRule => "no_rule",
            Class::CannotArrive => "cannot_arrive",
            Class::Shadowed => "shadowed",
            Class::IdleReject => "idle_reject",
            Class::Plaintext => "plaintext",
            Class::Drift => "drift",
            Class::Overridden => "overridden",
            Class::UnfitForRestart => "unfit_for_restart",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_of_disagreements_is_current() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.md");
        let found = std::fs::read_to_string(&file).unwrap();
        let (head, _) = found.split_once("\n| name | ").unwrap();
        let mut wanted = format!("{head}\n| name | meaning | what to do about it |\n|---|---|---|\n");
        for class in Class::ALL {
            wanted += &format!(
                "| `{}` | {} | {} |\n",
                class.name(),
                class.meaning(),
                class.remedy()
            );
        }
        if std::env::var_os("PGFW_UPDATE_DOCS").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        }
        assert!(
            found == wanted,
            "docs/verify.md is not what the code says; write it anew with: \
             PGFW_UPDATE_DOCS=1 cargo test --package pgfw the_document_of_disagreements"
        );
    }

    #[test]
    fn names_are_those_of_the_messages() {
        for class in Class::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }
}
