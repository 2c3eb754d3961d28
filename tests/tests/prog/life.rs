//! The datapath's life: attaching, adopting, rolling back by itself, leaving nothing.

use pgfw::config::Attach;
use pgfw::datapath::{Choice, Control, Datapath, DatapathError, Mode};
use pgfw_common::reason::Reason;
use pgfw_common::record::ABI;
use pgfw_tests::lab::{Bpffs, PATIENCE, Reach, eventually, run};

use crate::pair::{GUESTS, Pair, for_guests};
use pgfw_tests::bench::{PG, allowed_for, from_now, key, policy};

#[test]
fn f33_someone_elses_program_is_named_and_left() {
    let pair = Pair::new();
    let mut other = Datapath::open(&pair.bpffs.path().join("other")).expect("a datapath");
    let theirs = pair.attach(&mut other, Attach::Generic).expect("an attachment");
    let mut datapath = pair.open();
    for mode in [Attach::Auto, Attach::Native, Attach::Generic] {
        match pair.attach(&mut datapath, mode) {
            Err(DatapathError::Foreign { interface, program }) => {
                assert_eq!((interface.as_str(), program.id), ("eth0", theirs.program));
                let name = program.name.expect("root is told the name");
                assert_eq!(name, other.kernel().program("entry"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(datapath.attached().expect("links").is_empty());
    assert_eq!(pair.host.within(|| other.attached().expect("links")), [theirs]);
}

#[test]
fn f31_the_mode_that_was_got_is_told() {
    for (wanted, got) in [
        (Attach::Generic, Mode::Generic),
        (Attach::Native, Mode::Native),
        (Attach::Auto, Mode::Generic),
    ] {
        let pair = Pair::new();
        let mut datapath = pair.open();
        pair.enforce(&mut datapath, 1, &for_guests());
        datapath.detach(pair.ifindex()).expect("detached");
        let attached = pair.attach(&mut datapath, wanted).expect("an attachment");
        assert_eq!(
            (attached.mode, attached.name.as_deref(), attached.alive),
            (Some(got), Some("eth0"), true)
        );
        let _listener = pair.listen(5432);
        assert_eq!(pair.reach(5432), Reach::Open);
        assert_eq!(pair.reach(5433), Reach::Silent);
    }
}

#[test]
fn f29_the_loopback_interface_is_refused() {
    let pair = Pair::new();
    let mut datapath = pair.open();
    let refused = pair.host.within(|| datapath.attach(1, Attach::Auto));
    assert!(
        matches!(refused, Err(DatapathError::Loopback { .. })),
        "{refused:?}"
    );
    let absent = pair
        .host
        .within(|| datapath.attach(4711, Attach::Auto))
        .expect_err("no interface");
    assert_eq!(absent.to_string(), "there is no interface with index 4711");
}

#[test]
fn f34_enforcement_outlives_its_owner_and_is_adopted() {
    let pair = Pair::new();
    let _listener = pair.listen(5432);
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 7, &for_guests());
    let attached = pair.host.within(|| datapath.attached().expect("links"));
    assert_eq!((pair.reach(5432), pair.reach(5433)), (Reach::Open, Reach::Silent));
    let (control, coverage, counters) = (
        datapath.control().expect("a record"),
        datapath.coverage(7).expect("the coverage"),
        datapath.counters().expect("counters"),
    );
    drop(datapath);
    assert_eq!((pair.reach(5432), pair.reach(5433)), (Reach::Open, Reach::Silent));

    let mut datapath = pair.open();
    assert_eq!(datapath.control().expect("a record"), control);
    assert_eq!(datapath.generations().expect("slots"), [7]);
    assert_eq!(datapath.coverage(7).expect("the coverage"), coverage);
    assert_eq!(pair.host.within(|| datapath.attached().expect("links")), attached);
    let index = pair.ifindex();
    let after = datapath.counters().expect("counters");
    for (reason, count) in &counters.interfaces[&index] {
        assert!(
            after.interfaces[&index][reason] >= *count,
            "{reason:?} went backwards"
        );
    }
    // Attaching again adopts: the same program, and the counters go on.
    assert_eq!(
        pair.attach(&mut datapath, Attach::Auto).expect("an attachment"),
        attached[0]
    );
    assert_eq!(pair.reach(5433), Reach::Silent);
    let last = datapath.counters().expect("counters");
    assert!(last.interfaces[&index][&Reason::NewTcp] > after.interfaces[&index][&Reason::NewTcp]);
}

#[test]
fn f47_an_unconfirmed_change_rolls_back_with_nobody_alive() {
    let pair = Pair::new();
    let _listener = pair.listen(5432);
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &for_guests());
    datapath.load(2, &policy()).expect("a policy");
    datapath
        .set_control(Control {
            confirmed: Choice::Generation(1),
            pending: Some((Choice::Generation(2), from_now(3_000))),
        })
        .expect("a control record");
    assert_eq!(pair.reach(5432), Reach::Silent, "the pending policy judges");
    let third = datapath.load(3, &policy());
    assert!(
        matches!(
            third,
            Err(DatapathError::SlotsFull {
                confirmed: 1,
                pending: 2
            })
        ),
        "{third:?}"
    );
    drop(datapath);
    eventually("the confirmed policy judges again", PATIENCE, || {
        (pair.reach(5432) == Reach::Open).then_some(())
    });

    // The slot of the one that lapsed is free again.
    let mut datapath = pair.open();
    datapath.load(3, &for_guests()).expect("a policy");
    assert_eq!(datapath.generations().expect("slots"), [1, 3]);
    datapath
        .set_control(Control {
            confirmed: Choice::Generation(3),
            pending: None,
        })
        .expect("a control record");
    datapath.collect().expect("collected");
    assert_eq!(datapath.generations().expect("slots"), [3]);
    assert!(matches!(
        datapath.coverage(1),
        Err(DatapathError::NotLoaded { generation: 1 })
    ));
    assert_eq!(pair.reach(5432), Reach::Open);
}

#[test]
fn f53_the_first_enforcement_is_on_probation() {
    let pair = Pair::new();
    let _listener = pair.listen(5433);
    let mut datapath = pair.open();
    assert_eq!(datapath.control().expect("a record").confirmed, Choice::Pass);
    pair.attach(&mut datapath, Attach::Auto).expect("an attachment");
    assert_eq!(pair.reach(5433), Reach::Open, "attached, but nothing is in force");
    datapath.load(1, &policy()).expect("a policy");
    assert_eq!(pair.reach(5433), Reach::Open, "loaded, but not chosen");
    datapath
        .set_control(Control {
            confirmed: Choice::Pass,
            pending: Some((Choice::Generation(1), from_now(3_000))),
        })
        .expect("a control record");
    assert_eq!(pair.reach(5433), Reach::Silent);
    drop(datapath);
    eventually("the host is as open as before", PATIENCE, || {
        (pair.reach(5433) == Reach::Open).then_some(())
    });
}

#[test]
fn f43_an_entry_ends_with_nobody_alive() {
    let pair = Pair::new();
    let _listener = pair.listen(5432);
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    datapath
        .update(1, &[(key(PG, GUESTS), allowed_for(3_000))], &[])
        .expect("an update");
    drop(datapath);
    assert_eq!(pair.reach(5432), Reach::Open);
    eventually("the entry ends", PATIENCE, || {
        (pair.reach(5432) == Reach::Silent).then_some(())
    });
}

#[test]
fn f37_off_leaves_nothing_attached_and_nothing_pinned() {
    let pair = Pair::new();
    let _listener = pair.listen(5433);
    assert!(!Datapath::exists(&pair.pins()));
    let mut datapath = pair.open();
    pair.enforce(&mut datapath, 1, &policy());
    drop(datapath);
    // A damaged generation and a folder of another ABI are no obstacle.
    std::fs::remove_file(pair.pins().join(format!("v{ABI}/gen-1/policy"))).expect("damage");
    std::fs::create_dir_all(pair.pins().join("v0/gen-9")).expect("a folder");
    assert!(Datapath::exists(&pair.pins()));
    assert_eq!(pair.reach(5433), Reach::Silent);
    let index = pair.ifindex();
    let removed = pair.host.within(|| Datapath::off(&pair.pins())).expect("off");
    assert_eq!(removed.interfaces, [index]);
    assert_eq!(pair.reach(5433), Reach::Open);
    let shown = run(pair
        .host
        .command("ip")
        .args(["-details", "link", "show", "dev", "eth0"]))
    .expect_success();
    assert!(!shown.contains("xdp"), "{shown}");
    assert!(!Datapath::exists(&pair.pins()) && !pair.pins().exists());
    let again = Datapath::off(&pair.pins()).expect("off twice");
    assert_eq!((again.interfaces.len(), again.pins), (0, 0));
}

#[test]
fn f38_a_folder_that_is_no_bpf_file_system_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let pins = folder.path().join("pgfw");
    let refused = Datapath::open(&pins).expect_err("no bpf file system");
    assert_eq!(
        refused.to_string(),
        format!("{} does not lie on a bpf file system", pins.display())
    );
    assert!(!pins.exists());
    let refused = Datapath::off(folder.path()).expect_err("no bpf file system");
    assert!(matches!(refused, DatapathError::NotBpffs { .. }), "{refused}");
}

#[test]
fn f38_a_read_only_bpf_file_system_is_named() {
    let bpffs = Bpffs::new();
    nix::mount::mount(
        None::<&str>,
        bpffs.path(),
        None::<&str>,
        nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .expect("a remount");
    let refused = Datapath::open(&bpffs.path().join("pgfw")).expect_err("read-only");
    assert!(matches!(refused, DatapathError::ReadOnly { .. }), "{refused}");
}

#[test]
fn pins_of_another_shape_are_refused_and_not_used() {
    let bpffs = Bpffs::new();
    let pins = bpffs.path().join("pgfw");
    drop(Datapath::open(&pins).expect("a datapath"));
    std::fs::rename(
        pins.join(format!("v{ABI}/ECHO")),
        pins.join(format!("v{ABI}/CONTROL")),
    )
    .expect("the wrong map");
    let refused = Datapath::open(&pins).expect_err("another shape");
    assert!(refused.to_string().contains("CONTROL"), "{refused}");
    std::fs::remove_file(pins.join(format!("v{ABI}/CONTROL"))).expect("no map");
    let refused = Datapath::open(&pins).expect_err("no map");
    assert!(refused.to_string().contains("CONTROL"), "{refused}");
}
