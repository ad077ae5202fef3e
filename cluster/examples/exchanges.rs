//! What `cargo xtask boards` runs on several boards: each argument is a thing to do, which ends with a failure if it does
//! not go as it should.

use std::cell::Cell;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use armlet::boards::{Comm, CommError};
use armlet_mpi::{Card, Counted, Counts, Mpi, machine};

#[path = "../../tests/common/contract.rs"]
#[allow(unreachable_pub)]
mod contract;

/// Bytes of a piece that goes round: more than MPI sends before it is asked for.
const PIECE: usize = 1 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let patience = if let ["silent", ..] = args[..] { 1 } else { 10 };
    let mpi = Mpi::new(Duration::from_secs(patience)).expect("MPI");
    let done = match args[..] {
        ["contract"] => contract(mpi),
        ["check"] => check(mpi),
        ["gather", bytes, rounds] => gather(mpi, number(bytes) as usize, number(rounds)),
        ["idle", seconds] => idle(&mpi, number(seconds)),
        ["passes", seconds] => passes(&mpi, number(seconds)),
        ["waits", seconds] => waits(&mpi, number(seconds)),
        ["silent", rank] => silent(&mpi, number(rank) as usize),
        ["thread"] => thread(&mpi),
        ["overlap", polls] => overlap(&mpi, number(polls) as u32),
        ["cards", trouble] => cards(&mpi, trouble),
        _ => Err("usage: exchanges WHAT …".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// What boards may rely on, also in the library's wrappers; and what it counts.
fn contract(mpi: Mpi) -> Result<(), String> {
    let mpi = Counted::new(mpi);
    contract::everything_is_heard_everywhere(&mpi);
    contract::pieces_go_round(&mpi, 4);
    contract::pieces_go_round(&mpi, 0);
    contract::pieces_go_round(&mpi, PIECE);
    let (rank, size) = (mpi.rank() as u64, mpi.size() as u64);
    let others = size - 1;
    let all = 3 * others * size / 2;
    let expected = Counts {
        exchanges: if others > 0 { 1 + 2 * size + 3 * others } else { 0 },
        sent: others * (3 * rank + 2 * 2 + 4 + PIECE as u64),
        received: all - 3 * rank + others * (2 * 2 + 4 + PIECE as u64),
    };
    let expected = if others > 0 { expected } else { Counts::default() };
    if mpi.counts() != expected {
        return Err(format!("board {rank}: {}, and the formulas say {expected}", mpi.counts()));
    }
    contract::another_length(&mpi);
    // After that the boards still agree.
    contract::everything_is_heard_everywhere(&mpi);
    let nobody = mpi.broadcast(mpi.size(), &mut [1]);
    if others > 0 && nobody != (Err(CommError::Gone { rank: mpi.size() })) {
        return Err(format!("a board that is not there: {nobody:?}"));
    }
    Ok(())
}

/// What `armlet-mpi check` says.
fn check(mpi: Mpi) -> Result<(), String> {
    armlet_mpi::check::run(&Counted::new(mpi))?.into_iter().for_each(|text| print!("{text}"));
    Ok(())
}

/// Gathers, and says how many bytes it sent.
fn gather(mpi: Mpi, bytes: usize, rounds: u64) -> Result<(), String> {
    let mpi = Counted::new(mpi);
    let ends: Vec<usize> = (1..=mpi.size()).map(|i| i * bytes).collect();
    let mut all = vec![0; bytes * mpi.size()];
    for _ in 0..rounds {
        mpi.all_gather(&mut all, &ends).map_err(|e| e.to_string())?;
    }
    println!("board {}: {}", mpi.rank(), mpi.counts());
    Ok(())
}

/// Seconds of CPU time of this process.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: user and system time are the 12th and the 13th, in hundredths of a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The first board is quiet for some seconds, and the others wait for it: how much of a core that takes them.
fn idle(mpi: &Mpi, seconds: u64) -> Result<(), String> {
    let (start, before) = (Instant::now(), cpu());
    if mpi.rank() == 0 {
        thread::sleep(Duration::from_secs(seconds));
        return mpi.listen(0, &mut [1; 24]).map_err(|e| e.to_string());
    }
    let mut command = [0; 24];
    mpi.listen(0, &mut command).map_err(|e| e.to_string())?;
    let percent = 100.0 * (cpu() - before) / start.elapsed().as_secs_f64();
    println!("idle: {percent:.2} % of a core");
    if command == [1; 24] { Ok(()) } else { Err(format!("the command is {command:?}")) }
}

/// Passes of 122 gathers one after another, for so many seconds.
fn passes(mpi: &Mpi, seconds: u64) -> Result<(), String> {
    introduce(mpi)?;
    let ends: Vec<usize> = (1..=mpi.size()).map(|i| i * 1152).collect();
    let mut all = vec![0; 1152 * mpi.size()];
    let start = Instant::now();
    for pass in 1.. {
        let mut command = [u8::from(start.elapsed().as_secs() >= seconds)];
        mpi.listen(0, &mut command).map_err(|e| e.to_string())?;
        mpi.begin(1);
        if command == [1] {
            break;
        }
        for _ in 0..122 {
            mpi.all_gather(&mut all, &ends).map_err(|e| e.to_string())?;
        }
        mpi.keep(pass);
        if mpi.rank() == 0 && pass == 10 {
            println!("all run");
        }
    }
    Ok(())
}

/// All wait for a command of the first board, which comes after so many seconds.
fn waits(mpi: &Mpi, seconds: u64) -> Result<(), String> {
    introduce(mpi)?;
    mpi.listen(0, &mut [0]).map_err(|e| e.to_string())?;
    mpi.begin(1);
    if mpi.rank() == 0 {
        println!("all run");
        thread::sleep(Duration::from_secs(seconds));
    }
    mpi.listen(0, &mut [0]).map_err(|e| e.to_string())
}

/// Boards know each other's names, and say which processes they are.
fn introduce(mpi: &Mpi) -> Result<(), String> {
    mpi.start(Ok(Card { host: machine::host(), ..Card::default() }))?;
    println!("board {} is process {}", mpi.rank(), std::process::id());
    // The first one says what comes next when all have said that.
    contract::gather(mpi).map_err(|e| e.to_string())?;
    thread::sleep(Duration::from_millis(200));
    Ok(())
}

/// One board stops to answer in the third pass.
fn silent(mpi: &Mpi, rank: usize) -> Result<(), String> {
    mpi.start(Ok(Card { host: format!("b{}", mpi.rank()), ..Card::default() }))?;
    for pass in 0..4 {
        mpi.listen(0, &mut [0]).map_err(|e| e.to_string())?;
        mpi.begin(1);
        if mpi.rank() == rank && pass == 2 {
            thread::sleep(Duration::from_secs(60));
        }
        if mpi.rank() != rank && pass == 0 {
            // Longer than the patience, but in the first pass; the other boards wait.
            thread::sleep(Duration::from_millis(1500));
        }
        contract::pieces_go_round(mpi, 64);
        mpi.keep(pass + 1);
    }
    Err("nobody was silent".into())
}

/// Another thread must not call MPI.
fn thread(mpi: &Mpi) -> Result<(), String> {
    let called = thread::scope(|scope| scope.spawn(|| mpi.broadcast(0, &mut [0])).join());
    if called.is_err() { Ok(()) } else { Err("a thread that did not start MPI has called it".into()) }
}

/// A step of the ring: a piece of 1 MiB each way, and 50 ms of work which polls so many times. The least of twenty, in
/// hundredths of the work.
fn overlap(mpi: &Mpi, polls: u32) -> Result<(), String> {
    const WORK: Duration = Duration::from_millis(50);
    let (rank, size) = (mpi.rank(), mpi.size());
    let (left, right) = ((rank + size - 1) % size, (rank + 1) % size);
    let (piece, mut next) = (vec![rank as u8; PIECE], vec![0; PIECE]);
    let worked = Cell::new(WORK);
    let mut work = |poll: &dyn Fn()| {
        let start = Instant::now();
        let mut polled = 0;
        while start.elapsed() < WORK {
            // The other cores would compute: this machine may have none to spare for each board.
            let next = WORK * (polled + 1) / (polls + 1);
            thread::sleep(next.saturating_sub(start.elapsed()));
            if polled < polls {
                poll();
                polled += 1;
            }
        }
        worked.set(start.elapsed());
    };
    let mut least = f64::INFINITY;
    for _ in 0..20 {
        mpi.broadcast(0, &mut [0]).map_err(|e| e.to_string())?;
        let start = Instant::now();
        mpi.shift(Some((right, &piece)), Some((left, &mut next)), &mut work).map_err(|e| e.to_string())?;
        least = least.min(start.elapsed().as_secs_f64() / worked.get().as_secs_f64());
    }
    if rank == 0 {
        println!("{:.0}", 100.0 * least);
    }
    Ok(())
}

/// The last board has another card than the others, or cannot start.
fn cards(mpi: &Mpi, trouble: &str) -> Result<(), String> {
    let mut card = Card { host: format!("b{}", mpi.rank()), threads: 1, cpus: [1, 1], ..Card::default() };
    let is_last = mpi.rank() + 1 == mpi.size();
    let own = match trouble {
        "refused" if is_last => Err("model.gguf: no such file".into()),
        _ => {
            match trouble {
                "model" if is_last => card.model = 1,
                "pinned" if is_last => (card.threads, card.cpus) = (4, [1, 4]),
                "memory" if is_last => (card.needed, card.available) = (900, 800),
                _ => (),
            }
            Ok(card)
        }
    };
    mpi.start(own).map(drop).map_err(|why| if mpi.rank() == 0 { why } else { String::new() })
}
