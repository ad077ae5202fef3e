//! `armlet-mpi check`: what the boards and the network between them are, and what to fix.

use std::time::{Duration, Instant, SystemTime};

use armlet::arch::Kernels;
use armlet::boards::{Comm, CommError};
use mpi::traits::CommunicatorCollectives;

use crate::agree::gather_texts;
use crate::card::Card;
use crate::counted::Counted;
use crate::launch;
use crate::machine::{self, Link};
use crate::transport::{Mpi, library};

/// Messages of these sizes give latency and rate.
const SIZES: [usize; 2] = [8, 64 << 10];
/// How often a message goes there and back.
const ROUNDS: usize = 200;
/// Bytes of a board's part when all gather.
const PART: usize = 4 << 10;
/// Seconds by which clocks may differ, so that times of files and certificates are right.
const CLOCKS: f64 = 1.0;

/// Between the first board and another.
struct Path {
    /// Seconds of a message, one way.
    latency: f64,
    /// Bytes per second.
    rate: f64,
    /// Seconds by which the other board's clock is ahead.
    clock: f64,
}

/// Measures, and gives on the first board what was found.
///
/// # Errors
/// Why the boards do not run together.
pub fn run(boards: &Counted<Mpi>) -> Result<Option<String>, String> {
    let mpi = boards.boards();
    let cards = mpi.meet(Ok(Card::here(Kernels::detect().backend())))?;
    let line = launch::line(&library(), mpi.patience().least());
    let links = machine::links();
    let fixes = gather_texts(mpi, &machine::to_fix(machine::cpus(), &links, &line).join("\n"))?;
    let links = gather_texts(mpi, &describe(&links))?;
    let launched = mpi.check_launch(&cards);
    let measured = measure(boards).map_err(|e| e.to_string())?;
    if mpi.rank() > 0 {
        return Ok(None);
    }
    let mut to_fix: Vec<String> = fixes
        .iter()
        .enumerate()
        .flat_map(|(rank, fixes)| fixes.lines().map(move |fix| format!("{}: {fix}", mpi.board(rank))))
        .collect();
    to_fix.extend(launched.err());
    let mut out = format!("{}\n", library());
    for (rank, (card, links)) in cards.iter().zip(&links).enumerate() {
        let [cpus, all] = card.cpus;
        let (board, available, backend) = (mpi.board(rank), card.available, &card.backend);
        out += &format!("{board}: {cpus} of {all} CPUs, {available} MiB available, {backend}; {links}\n");
    }
    for (rank, path) in (1..).zip(&measured.paths) {
        let (board, Path { latency, rate, clock }) = (mpi.board(rank), path);
        let (latency, rate) = (latency * 1e3, rate / 1e6);
        out += &format!("{board}: {latency:.3} ms and {rate:.1} MB/s from the first, its clock {clock:+.3} s\n");
        if clock.abs() > CLOCKS {
            to_fix.push(format!("{board}: its clock differs by {clock:.0} s: sudo timedatectl set-ntp true"));
        }
    }
    if let Some([direct, collective]) = measured.gathers {
        let [direct, collective] = [direct, collective].map(|time| time * 1e3);
        out += &format!("gathering {PART} bytes of each: {direct:.3} ms; {collective:.3} ms by MPI_Iallgather\n");
    }
    out += &match &to_fix[..] {
        [] => "nothing to fix\n".to_string(),
        fixes => format!("to fix:\n  {}\n", fixes.join("\n  ")),
    };
    Ok(Some(out))
}

fn describe(links: &[Link]) -> String {
    let describe = |Link { name, speed, is_wireless, saves_energy }: &Link| {
        let speed = speed.map_or(String::new(), |speed| format!(" {speed} Mbit/s"));
        let eee = match saves_energy {
            Some(true) => ", energy-efficient",
            Some(false) => "",
            None => ", EEE not known (ethtool)",
        };
        format!("{name}{speed}{}{eee}", if *is_wireless { " wireless" } else { "" })
    };
    match links {
        [] => "no network device".into(),
        links => links.iter().map(describe).collect::<Vec<_>>().join("; "),
    }
}

struct Measured {
    /// To each board but the first.
    paths: Vec<Path>,
    /// Seconds of a gather, by this program and by MPI; `None` for one board.
    gathers: Option<[f64; 2]>,
}

fn measure(boards: &Counted<Mpi>) -> Result<Measured, CommError> {
    let mut paths = Vec::new();
    for other in 1..boards.size() {
        // The others wait for their turn here.
        boards.listen(0, &mut [0])?;
        boards.begin(1);
        if boards.rank() == 0 || boards.rank() == other {
            let times = SIZES.map(|size| ping_pong(boards, other, size));
            let [short, long] = [times[0]?, times[1]?];
            let rate = (SIZES[1] - SIZES[0]) as f64 / (long.0 - short.0).max(1e-9);
            paths.push(Path { latency: short.0, rate, clock: short.1 });
        }
    }
    boards.listen(0, &mut [0])?;
    boards.begin(1);
    let gathers = if boards.size() > 1 { Some(gathers(boards)?) } else { None };
    Ok(Measured { paths, gathers })
}

/// Seconds of a message one way, a twentieth of which are faster; and by how much the other's clock is ahead.
fn ping_pong(boards: &Counted<Mpi>, other: usize, size: usize) -> Result<(f64, f64), CommError> {
    let (first, peer) = if boards.rank() == 0 { (true, other) } else { (false, 0) };
    let mut data = vec![0; size];
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (start, clock) = (Instant::now(), now());
        if first {
            boards.shift(Some((peer, &data)), None, &mut |_| ())?;
            boards.shift(None, Some((peer, &mut data)), &mut |_| ())?;
        } else {
            boards.shift(None, Some((peer, &mut data)), &mut |_| ())?;
            data[..8].copy_from_slice(&now().to_le_bytes());
            boards.shift(Some((peer, &data)), None, &mut |_| ())?;
        }
        let time = start.elapsed().as_secs_f64();
        let theirs = f64::from_le_bytes(data[..8].try_into().unwrap_or_default());
        rounds.push((time / 2.0, theirs - (clock + time / 2.0)));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok((rounds[ROUNDS / 20].0, rounds[0].1))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// Seconds of a gather, by this program and by MPI: medians.
fn gathers(boards: &Counted<Mpi>) -> Result<[f64; 2], CommError> {
    let size = boards.size();
    let (own, mut all) = (vec![0_u8; PART], vec![0_u8; PART * size]);
    let ends: Vec<usize> = (1..=size).map(|i| i * PART).collect();
    let world = boards.boards().world();
    let median = |mut gather: Box<dyn FnMut() -> Result<(), CommError> + '_>| {
        let mut time = || {
            let start = Instant::now();
            gather().map(|()| start.elapsed().as_secs_f64())
        };
        let mut times = (0..ROUNDS).map(|_| time()).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times[ROUNDS / 2])
    };
    let direct = median(Box::new(|| boards.all_gather(&mut all, &ends)))?;
    let collective = median(Box::new(|| {
        mpi::request::scope(|scope| {
            let mut request = world.immediate_all_gather_into(scope, &own[..], &mut all[..]);
            while let Err(unfinished) = request.test() {
                request = unfinished;
            }
        });
        Ok(())
    }))?;
    Ok([direct, collective])
}
