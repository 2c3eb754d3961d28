//! Which generation signs and which count, without a server.

use super::super::crl::Crl;
use super::*;
use crate::ledger::types::Authority;

impl Lab {
    pub(super) fn introduce(&mut self, authority: Authority) -> u32 {
        self.try_introduce(authority).unwrap()
    }

    pub(super) fn try_introduce(&mut self, authority: Authority) -> Result<u32, PkiError> {
        let request = InitRequest {
            host: "db1",
            crl_ttl: days(365),
            requester: "root",
        };
        introduce(&self.store, &mut self.ledger, authority, &request, T0)
    }

    fn counting(&self) -> Vec<u32> {
        self.store.counting(Authority::Client).unwrap()
    }

    fn signs(&mut self) -> u32 {
        self.issue("alice").certificate.authority_generation
    }

    fn roots(&self) -> usize {
        let roots = self.store.roots(Authority::Client).unwrap();
        roots.matches("BEGIN CERTIFICATE").count()
    }

    fn published_lists(&self) -> usize {
        std::fs::read_dir(self.published()).unwrap().count()
    }

    fn drop_one(&self, which: Which) -> Option<u32> {
        drop_one(&self.store, Authority::Client, which).unwrap()
    }

    fn retire(&self) {
        retire(&self.store, Authority::Client, &self.targets.folders).unwrap();
    }
}

#[test]
fn p23_a_generation_that_is_there_signs_only_once_that_is_said() {
    let mut lab = Lab::new();
    assert_eq!((lab.counting(), lab.signs(), lab.roots()), (vec![1], 1, 1));
    // Said again it is the same one.
    assert_eq!(
        (lab.introduce(Authority::Client), lab.introduce(Authority::Client)),
        (2, 2)
    );
    assert_eq!((lab.counting(), lab.signs(), lab.roots()), (vec![1, 2], 1, 2));
    turn(&lab.store, Authority::Client).unwrap();
    assert_eq!((lab.counting(), lab.signs(), lab.roots()), (vec![1, 2], 2, 2));
    lab.refresh(T0);
    assert_eq!(lab.published_lists(), 3);

    assert_eq!(lab.drop_one(Which::Old), Some(1));
    assert_eq!(lab.drop_one(Which::New), Some(1), "it is on its way already");
    assert_eq!((lab.counting(), lab.signs(), lab.roots()), (vec![2], 2, 1));
    // Its list stands for as long as a server may trust it.
    lab.refresh(later(300 * DAY));
    assert_eq!(lab.published_lists(), 3);
    lab.retire();
    lab.retire();
    assert_eq!((lab.counting(), lab.signs(), lab.roots()), (vec![2], 2, 1));
    assert_eq!(lab.published_lists(), 2);
    let names: Vec<String> = lab
        .store
        .authorities(Authority::Client)
        .unwrap()
        .into_iter()
        .map(|info| info.subject_dn)
        .collect();
    assert_eq!(names, ["/CN=pgfw client CA db1 g2"]);
    assert!(!lab.path("pki/client-ca/retired/g1/ca.key").exists());
    assert!(lab.path("pki/client-ca/retired/g1/ca.crt").exists());
}

#[test]
fn p23_what_was_given_up_leaves_its_number_used() {
    let mut lab = Lab::new();
    assert_eq!(lab.introduce(Authority::Client), 2);
    assert_eq!(lab.drop_one(Which::New), Some(2));
    assert_eq!(lab.signs(), 1);
    lab.retire();
    let rotation = lab.store.rotation(Authority::Client).unwrap();
    assert_eq!(
        (rotation.phase.signs(), rotation.counts(1), rotation.counts(2)),
        (1, true, false)
    );
    assert_eq!(lab.introduce(Authority::Client), 3);
    // Nor is one used twice that the ledger alone remembers.
    lab.drop_one(Which::New);
    lab.retire();
    std::fs::remove_file(lab.path("pki/client-ca/rotation.json")).unwrap();
    assert_eq!(lab.introduce(Authority::Client), 4);
}

#[test]
fn p23_clients_that_hold_the_old_root_alone_are_known() {
    let mut lab = Lab::new();
    let before = lab.issue("alice").certificate.serial;
    lab.issue("bob");
    lab.revoke("bob", T0).unwrap();
    lab.introduce(Authority::Server);
    lab.issue("alice");
    let Phase::Introducing(change) = lab.store.rotation(Authority::Server).unwrap().phase else {
        panic!("not begun");
    };
    assert_eq!(change.without, [before]);
}

#[test]
fn p23_a_generation_that_is_to_sign_and_is_gone_is_named_and_none_signs_for_it() {
    let mut lab = Lab::new();
    lab.introduce(Authority::Client);
    turn(&lab.store, Authority::Client).unwrap();
    std::fs::rename(lab.path("pki/client-ca/g2"), lab.path("elsewhere")).unwrap();
    let error = lab.issue_as(client("alice"), T0).unwrap_err();
    assert!(error.to_string().contains("client-ca/g2"), "{error}");

    std::fs::write(lab.path("pki/client-ca/rotation.json"), "{}").unwrap();
    let error = lab.issue_as(client("alice"), T0).unwrap_err();
    assert!(error.to_string().contains("rotation.json"), "{error}");
}

/// The list of what goes cannot be signed any more: that is in nobody's way, and nobody is told that it is well.
#[test]
fn p23_a_lost_key_of_the_old_generation_keeps_nothing_from_going_on() {
    let mut lab = Lab::new();
    lab.introduce(Authority::Client);
    turn(&lab.store, Authority::Client).unwrap();
    std::fs::remove_file(lab.path("pki/client-ca/g1/ca.key")).unwrap();
    assert_eq!(lab.refresh(T0).failures.len(), 1);
    lab.drop_one(Which::Old);
    let publication = lab.refresh(later(200 * DAY));
    assert_eq!(publication.failures, []);
    assert!(
        publication.damaged[0].message.contains("client-ca/g1"),
        "{publication:?}"
    );
    let stays = lab.store.authorities(Authority::Client).unwrap().pop().unwrap();
    let list = lab.published().join(format!("{:08x}.r0", stays.name_hash));
    assert!(Crl::read(&list, &stays).unwrap().is_some());
}

#[test]
fn p23_new_roots_are_something_new_for_a_program_that_reads_them() {
    let mut lab = Lab::new();
    let alice = lab.issue("alice").certificate;
    let (folder, group) = (lab.path("kept"), nix::unistd::getegid().as_raw());
    keep(&lab.store, &alice, &folder, group).unwrap();
    let before = kept_files(&folder);
    keep(&lab.store, &alice, &folder, group).unwrap();
    assert_eq!(kept_files(&folder), before);
    lab.introduce(Authority::Server);
    keep(&lab.store, &alice, &folder, group).unwrap();
    assert_ne!(kept_files(&folder), before);
}
