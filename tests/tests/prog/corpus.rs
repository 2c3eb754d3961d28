//! The corpus through the compiled program, counted packet by packet.

use pgfw::policy::coverage::ServiceId;
use pgfw_common::host::corpus::rows;
use pgfw_common::host::scene::Switches;
use pgfw_tests::bench::scene::Scene;

#[test]
fn the_corpus_gets_its_verdicts_from_the_program_too() {
    for (index, switches) in Switches::BOTH.into_iter().enumerate() {
        let scene = Scene::new(switches);
        for row in rows() {
            let wanted = row.wanted[index];
            scene.bench.expect(
                &format!("line {}, switches {switches:?}: {}", row.line, row.what),
                &row.frame,
                wanted.reason,
                wanted.service.map(ServiceId),
            );
        }
    }
}
