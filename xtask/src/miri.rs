//! Pointers, threads, scalar kernels and the C face under Miri, which sees undefined behaviour that a CPU hides.
//!
//! Miri takes a thousand times as long as a CPU: it runs tests of small shapes, by name.

use std::process::Command;

use crate::process::{Failed, Steps, outcome, say};

/// What is compiled, the tests of the gate, and those that run in full size only.
struct Tests {
    name: &'static str,
    target: &'static [&'static str],
    gate: &'static [&'static str],
    deep: &'static [&'static str],
}

const ALL: [Tests; 2] = [
    Tests {
        name: "pointers, threads and scalar kernels under Miri",
        target: &["--lib"],
        gate: &[
            "storage::arena::tests::plan_and_use_agree_to_the_byte",
            "storage::executor::tests::each_worker_starts_with_its_own_share",
            "storage::tiles::tests::rows_are_tiles_and_the_last_may_be_shorter",
            "arch::tests::matmul_leaves_out_what_is_not_there",
            "arch::tests::matmul_does_not_overflow_at_the_extremes",
            "arch::tests::quantise_rounds_to_nearest_and_never_gives_minus_128",
            "arch::tests::rms_norm_and_silu_match_f64",
            "arch::tests::attention::attention_leaves_out_what_is_not_there",
            "arch::tests::attention::parts_of_attention_merge",
        ],
        deep: &[
            "storage::tiles::tests::every_element_is_written_once_whatever_the_executor_does",
            "arch::tests::matmul_gives_the_same_bits_for_any_tile_and_layout",
            "arch::tests::attention::attention_gives_a_head_the_same_bits_in_any_group_and_place",
        ],
    },
    Tests {
        name: "the C face under Miri",
        target: &["--test", "it"],
        gate: &["capi::a_copy_of_a_context_is_none", "capi::every_status_is_reached"],
        deep: &["capi::what_was_saved_goes_on_alike", "capi::a_stop_leaves_a_context_that_goes_on"],
    },
];

pub(crate) fn run(steps: &mut Steps) -> Result<(), Failed> {
    let deep = steps.deep;
    ALL.iter().try_for_each(|tests| steps.step(tests.name, || tests.run(deep)))
}

impl Tests {
    fn run(&self, deep: bool) -> Result<(), Failed> {
        let names = [self.gate, if deep { self.deep } else { &[] }].concat();
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo", "miri", "test", "--no-default-features", "--features", "std,capi"]);
        cargo.args(self.target).args(["--target-dir", "target/miri", "--", "--exact"]).args(&names);
        // Files of this machine may be read.
        let output = outcome(cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation"))?;
        let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        say(said.trim());
        if !output.status.success() {
            return Err(Failed(format!("{cargo:?} ended with {}: {}", output.status, errors.trim())));
        }
        // A test of another name would be left out without a word.
        let passed = format!(" {} passed", names.len());
        if said.contains(&passed) {
            Ok(())
        } else {
            Err(Failed(format!("not{passed}: some of {names:?} are not there")))
        }
    }
}
