//! The audit log has authorities and PostgreSQL's rules; what is in no log is named.

use pgfw_tests::lab::Site;
use serde_json::Value;

use super::audit::those;
use super::stage::Stage;

/// Authorities and PostgreSQL's files: what became of them, and by whom; what changed nothing is not written.
#[test]
fn authorities_and_rules_and_who_changed_them() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let _daemon = stage.enforce();
    let authorities = |from: usize| -> Vec<String> {
        let all = those(&stage, "authority_changed").into_iter().skip(from);
        all.map(|r| {
            assert_eq!(r["by"], "root", "{r}");
            format!("{} {} {}", r["change"], r["authority"], r["generation"]).replace('"', "")
        })
        .collect()
    };
    assert_eq!(authorities(0), ["made server 1", "made client 1"]);
    let rules = |from: usize| -> Vec<String> {
        let all = those(&stage, "rules_changed").into_iter().skip(from);
        all.map(|r| {
            assert_eq!((&r["by"], &r["cluster"]), (&"root".into(), &"main".into()), "{r}");
            format!("{} {}", r["change"], r["generation"]).replace('"', "")
        })
        .collect()
    };
    assert_eq!(rules(0), ["applied 1"]);
    stage.pgfw.ok(&["pg", "apply"]);
    assert_eq!(rules(0).len(), 1);

    stage.configure("", "[[identity]]\nname = \"carol\"\n");
    stage.pgfw.ok(&["pg", "apply", "--confirm", "600s"]);
    stage.pgfw.ok(&["rollback"]);
    assert_eq!(rules(1), ["on_trial 2", "rolled_back 1"]);
    stage.pgfw.ok(&["pg", "apply", "--confirm", "600s"]);
    stage.pgfw.ok(&["confirm"]);
    let kept = rules(3);
    assert!(kept.len() == 2 && kept[1].starts_with("confirmed"), "{kept:?}");

    stage.pgfw.ok(&["ca", "rotate", "start", "client"]);
    assert_eq!(authorities(2), ["made client 2", "signs client 2"]);
    stage.pgfw.ok(&["ca", "rotate", "start", "client"]);
    assert_eq!(authorities(2).len(), 2);
    stage.pgfw.ok(&["ca", "rotate", "finish", "client", "--force"]);
    assert_eq!(authorities(4), ["dropped client 1", "retired client 1"]);
    stage.pgfw.ok(&["ca", "rotate", "start", "server"]);
    stage.pgfw.ok(&["ca", "rotate", "abort", "server"]);
    assert_eq!(
        authorities(6),
        ["made server 2", "dropped server 2", "retired server 2"]
    );
    let count = rules(0).len();
    stage.pgfw.ok(&["pg", "release"]);
    assert_eq!(rules(count), ["released null"]);
}

#[test]
fn the_status_names_servers_whose_connections_are_in_no_log() {
    let site = Site::new();
    let stage = Stage::new(&site);
    let unlogged = || {
        let status: Value = serde_json::from_str(&stage.pgfw.ok(&["--json", "status"])).unwrap();
        status["unlogged"].clone()
    };
    let _daemon = stage.enforce();
    let said = unlogged();
    let line = said[0].as_str().unwrap();
    assert!(
        line.contains("who connects to main") && line.contains("json = true"),
        "{said}"
    );
    assert!(stage.pgfw.ok(&["status"]).contains(line));
    stage.configure("audit = { json = true }", "");
    stage.pgfw.ok(&["reload", "--yes"]);
    assert_eq!(unlogged(), serde_json::json!([]));
    stage.configure("audit = { json = true, connections = false }", "");
    stage.pgfw.ok(&["reload", "--yes"]);
    assert_eq!(unlogged().as_array().map(Vec::len), Some(1));
}
