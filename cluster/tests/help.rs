//! What the program says of itself, without a launcher.

use std::process::{Command, Output};

fn armlet_mpi(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_armlet-mpi")).args(args).output().unwrap()
}

/// How boards are started is in the help of each command, with the settings by which the launcher notices that a board is gone.
#[test]
fn the_launch_line_is_in_the_help() {
    for command in [&["--help"][..], &["chat", "--help"], &["check", "--help"]] {
        let output = armlet_mpi(command);
        let help = String::from_utf8(output.stdout).unwrap();
        let launch: &[&str] = match armlet_mpi::library() {
            library if library.starts_with("Open MPI") => &["mpirun --hostfile boards", "keepalive", "--bind-to none"],
            _ => &["mpirun -f boards"],
        };
        for word in launch.iter().chain(&["--split", "--shares", "--patience"]) {
            assert!(output.status.success() && help.contains(word), "{command:?}: {word} in {help}");
        }
    }
}

#[test]
fn options_out_of_range_are_refused() {
    for (args, why) in [
        (&["check", "--split", "columns"][..], "not one of layers, rows, tokens"),
        (&["check", "--shares", "0,1"], "\"0\" is not from 1 to 255"),
        (&["check", "--patience", "0"], "not in 1..=3600"),
    ] {
        let output = armlet_mpi(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(why), "{args:?}: {said}");
    }
}
