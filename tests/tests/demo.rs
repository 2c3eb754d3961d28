//! The demo, as a newcomer runs it: every step comes out as it should, and the lab is gone afterwards.

use std::process::Command;

use pgfw_tests::lab::run;

#[test]
fn the_demo_comes_out_as_it_should() {
    let said = run(&mut Command::new(env!("CARGO_BIN_EXE_demo"))).expect_success();
    for step in [
        "alice is in, over TLS 1.3",
        "plaintext is refused",
        "a certificate of another authority is refused",
        "the scan finds SSH and nothing else",
        "bob, who may come from anywhere, logs in from there",
        "her session is over",
        "she is refused as revoked",
        "it adopts what runs",
        "no pin is left",
        "every step came out as it should",
    ] {
        assert!(said.contains(step), "{step}:\n{said}");
    }
    assert!(!said.contains('✗'), "{said}");
}
