//! A model's pages are read from an SD card while the first ones are worked on.
//!
//! A page that is not in memory is read when it is touched, and whoever touches it waits. So a first prompt would take as
//! long as reading and computing together. Here a thread asks for the weights beforehand, in the order in which a pass
//! needs them, and the first token comes when the slower of the two is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use armlet::gguf::File;

use crate::parts;

/// Bytes asked for at once: after each the thread looks whether it is still wanted.
const PIECE: usize = 1 << 20;

/// Runs `f`, and meanwhile asks for the pages of a model, if there is memory for all of them.
pub(crate) fn during<T>(file: &File<'_>, f: impl FnOnce() -> T) -> T {
    let wanted = in_order(file);
    let bytes: usize = wanted.iter().map(|data| data.len()).sum();
    if available().is_none_or(|room| room < bytes as u64) {
        return f();
    }
    let over = Over(AtomicBool::new(false));
    thread::scope(|scope| {
        // Without a thread, pages are read as they are touched.
        let _ = thread::Builder::new().name("read-ahead".into()).spawn_scoped(scope, || ask(&wanted, &over.0));
        let _over = Until(&over);
        f()
    })
}

/// Whether `f` has ended.
struct Over(AtomicBool);

/// Says so, also when it panics.
struct Until<'o>(&'o Over);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// The tensors' bytes in the order of a pass: layer by layer, then what belongs to none. Of the embedding a first pass needs a
/// few rows, unless it is the output head as well, and that is last.
fn in_order<'a>(file: &File<'a>) -> Vec<&'a [u8]> {
    let mut tensors: Vec<_> = file.tensors().map(|tensor| (layer(tensor.name), tensor.data)).collect();
    tensors.sort_by_key(|(layer, data)| (*layer, data.as_ptr()));
    tensors.into_iter().map(|(_, data)| data).collect()
}

/// The layer of a tensor named `blk.N.…`; the greatest number if it is of none.
fn layer(name: &str) -> u32 {
    let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
    number.unwrap_or(u32::MAX)
}

fn ask(wanted: &[&[u8]], over: &AtomicBool) {
    for piece in wanted.iter().flat_map(|data| data.chunks(PIECE)) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        parts::will_need(piece);
    }
}

/// Bytes of memory that programs may take without others being evicted, on Linux.
fn available() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_their_order() {
        let names = ["blk.0.attn_q.weight", "blk.10.ffn_up.weight", "token_embd.weight", "blk.x.y", "output.weight"];
        assert_eq!(names.map(layer), [0, 10, u32::MAX, u32::MAX, u32::MAX]);
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
