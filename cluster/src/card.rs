//! What boards show each other before they start, and what must be alike on all of them.

use armlet::arch::{Backend, KvType};
use armlet::engine::{Config, Pattern};
use armlet::model::Split;

use crate::patience::board;

/// The first bytes of a card.
const MAGIC: [u8; 4] = *b"armc";
/// What the rest of a card means; of another format only the first six bytes can be read.
const FORMAT: u16 = 3;

/// What all boards must have been told alike, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers([u32; ITEMS.len()]);

/// Their names, in that order.
const ITEMS: [&str; 10] =
    ["split", "context", "chunk", "rows of logits", "KV type", "Hadamard", "pattern", "sinks", "prefix", "slack"];

impl Numbers {
    /// Of a plan and a split.
    pub fn new(config: &Config, split: Split) -> Self {
        let Config { context, pattern, sinks, prefix, slack, chunk, logit_rows, kv, hadamard } = *config;
        let split = Split::ALL.iter().position(|s| *s == split).unwrap_or_default();
        let pattern = match pattern {
            Pattern::Full => 0,
            Pattern::Window => 1,
            Pattern::Sinks => 2,
            Pattern::Strided { every } => every.saturating_add(3),
        };
        let kv = KV.iter().position(|(known, _)| *known == kv).unwrap_or_default();
        let all = [split, context, chunk, logit_rows, kv, usize::from(hadamard), pattern, sinks, prefix, slack];
        Numbers(all.map(|n| u32::try_from(n).unwrap_or(u32::MAX)))
    }

    /// How an item is spelled.
    fn spelled(item: usize, n: u32) -> String {
        let names: Vec<&str> = match ITEMS[item] {
            "split" => Split::ALL.map(Split::name).to_vec(),
            "KV type" => KV.map(|(_, name)| name).to_vec(),
            "Hadamard" => vec!["off", "on"],
            "pattern" if n > 4 => return format!("strided:{}", n - 3),
            "pattern" => vec!["full", "window", "sinks"],
            _ => vec![],
        };
        names.get(n as usize).map_or(n.to_string(), |name| (*name).into())
    }
}

const KV: [(KvType, &str); 3] = [(KvType::F16, "f16"), (KvType::Int8, "int8"), (KvType::F32, "f32")];

/// What a board shows the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Version of armlet.
    pub version: [u16; 3],
    /// The model's fingerprint; 0 without a model.
    pub model: u64,
    /// What it was told.
    pub numbers: Numbers,
    /// Instruction set of its kernels.
    pub backend: String,
    /// Whether any instruction set gives the same bits: the weights are quantised.
    pub any_backend: bool,
    /// Its name.
    pub host: String,
    /// What no other board has: drawn when it was switched on.
    pub boot: u64,
    /// Threads that compute.
    pub threads: u16,
    /// CPUs that this process may use, and that the launcher's daemon may use.
    pub cpus: [u16; 2],
    /// MiB that it will need.
    pub needed: u32,
    /// MiB that it has.
    pub available: u32,
    /// MB per second at which it reads memory; 0 if that was not measured.
    pub bandwidth: u32,
}

impl Card {
    /// Its size, the same in every format. The last byte is not the card's.
    pub(crate) const BYTES: usize = 128;

    /// What any board can say of itself; the rest is the program's to fill in.
    pub fn here(backend: Backend) -> Self {
        use crate::machine::{available_mib, boot, cpus, host, version};
        let backend = backend.name().into();
        let (host, available) = (host(), available_mib());
        let (version, boot, cpus) = (version(), boot(), cpus());
        Card { version, backend, any_backend: true, host, boot, cpus, available, ..Card::default() }
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.version.iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(self.model.to_le_bytes());
        bytes.extend(self.numbers.0.iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(text::<8>(&self.backend));
        bytes.push(u8::from(self.any_backend));
        bytes.extend(text::<32>(&self.host));
        bytes.extend(self.boot.to_le_bytes());
        bytes.extend([self.threads, self.cpus[0], self.cpus[1]].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([self.needed, self.available, self.bandwidth].iter().flat_map(|n| n.to_le_bytes()));
        let mut out = [0; Self::BYTES];
        out[..bytes.len()].copy_from_slice(&bytes);
        out
    }

    /// The card of these bytes; what they are instead, if they are none of this format.
    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, String> {
        let mut rest = &bytes[..];
        if take::<4>(&mut rest) != MAGIC {
            return Err("runs another program".into());
        }
        let format = u16::from_le_bytes(take(&mut rest));
        if format != FORMAT {
            return Err(format!("has cards of format {format}, and this program has format {FORMAT}"));
        }
        Ok(Card {
            version: [(); 3].map(|()| u16::from_le_bytes(take(&mut rest))),
            model: u64::from_le_bytes(take(&mut rest)),
            numbers: Numbers([(); ITEMS.len()].map(|()| u32::from_le_bytes(take(&mut rest)))),
            backend: untext(take::<8>(&mut rest)),
            any_backend: take(&mut rest) == [1],
            host: untext(take::<32>(&mut rest)),
            boot: u64::from_le_bytes(take(&mut rest)),
            threads: u16::from_le_bytes(take(&mut rest)),
            cpus: [(); 2].map(|()| u16::from_le_bytes(take(&mut rest))),
            needed: u32::from_le_bytes(take(&mut rest)),
            available: u32::from_le_bytes(take(&mut rest)),
            bandwidth: u32::from_le_bytes(take(&mut rest)),
        })
    }

    /// What differs from another board's card, and both values: item, own, other's.
    fn differs(&self, other: &Card) -> Option<(&'static str, String, String)> {
        if self.version != other.version {
            let spelled = |[major, minor, patch]: [u16; 3]| format!("{major}.{minor}.{patch}");
            return Some(("the version of armlet", spelled(self.version), spelled(other.version)));
        }
        if self.model != other.model {
            return Some(("the model", format!("{:016x}", self.model), format!("{:016x}", other.model)));
        }
        let numbers = self.numbers.0.iter().zip(&other.numbers.0).enumerate();
        if let Some((i, (own, others))) = numbers.into_iter().find(|(_, (own, others))| own != others) {
            return Some((ITEMS[i], Numbers::spelled(i, *own), Numbers::spelled(i, *others)));
        }
        let is_alike = self.backend == other.backend || (self.any_backend && other.any_backend);
        (!is_alike).then(|| ("the instruction set (ARMLET_CPU)", self.backend.clone(), other.backend.clone()))
    }
}

/// Whether the boards with these cards can run together; else the first reason against it.
pub(crate) fn compare(cards: &[Card]) -> Result<(), String> {
    let names: Vec<String> = cards.iter().map(|card| card.host.clone()).collect();
    let first = cards.first().ok_or("no boards")?;
    for (rank, card) in cards.iter().enumerate() {
        if let Some((item, own, other)) = card.differs(first) {
            return Err(format!("{}: {item} is {own}, and on {} {other}", board(rank, &names), board(0, &names)));
        }
    }
    for (rank, card) in cards.iter().enumerate() {
        let [cpus, all] = card.cpus;
        if card.threads > cpus && cpus < all {
            return Err(format!(
                "{}: {} threads, and the launcher has pinned it to {cpus} of its {all} CPUs: start with --bind-to none",
                board(rank, &names),
                card.threads
            ));
        }
        if let Some(other) = cards.iter().position(|other| other.host == card.host && other.boot != card.boot) {
            return Err(format!(
                "two boards are called {}, rank {rank} and rank {other}: sudo hostnamectl hostname NAME gives one another name",
                card.host
            ));
        }
        // Boards on one machine share its memory.
        let here = cards.iter().filter(|other| other.host == card.host);
        let needed: u64 = here.map(|card| u64::from(card.needed)).sum();
        if needed > u64::from(card.available) {
            return Err(format!(
                "{}: {needed} MiB are needed, and {} MiB are available; a shorter context (-c), more boards or other --shares \
                 need less",
                board(rank, &names),
                card.available
            ));
        }
    }
    Ok(())
}

/// The next bytes, of which there are enough on a card.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (bytes, after) = rest.split_first_chunk().map_or(([0; N], &[][..]), |(bytes, after)| (*bytes, after));
    *rest = after;
    bytes
}

/// As much of a text as there is room for.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    let bytes = &text.as_bytes()[..text.floor_char_boundary(N)];
    out[..bytes.len()].copy_from_slice(bytes);
    out
}

/// A text of another board, which is not trusted to be one: a name is made of what is seen.
fn untext<const N: usize>(bytes: [u8; N]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(N);
    String::from_utf8_lossy(&bytes[..end]).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(host: &str) -> Card {
        Card {
            version: [0, 1, 0],
            model: 0x1234_5678_9abc_def0,
            numbers: Numbers::new(&Config::default(), Split::Rows),
            backend: "dotprod".into(),
            any_backend: true,
            host: host.into(),
            boot: 5,
            threads: 4,
            cpus: [4, 4],
            needed: 1_000,
            available: 1_500,
            bandwidth: 11_000,
        }
    }

    #[test]
    fn a_card_is_read_as_it_was_written() {
        let long = Card { host: "ä".repeat(40), any_backend: false, ..card("") };
        for card in [card("b0"), long, Card::default(), Card { cpus: [1, u16::MAX], ..card("a\u{1b}[2J") }] {
            let read = Card::decode(&card.encode()).unwrap();
            let host: String = card.host.chars().take(32 / 2).map(|c| if c.is_control() { '?' } else { c }).collect();
            assert_eq!(read, Card { host, ..card });
        }
    }

    #[test]
    fn what_is_no_card_is_not_read() {
        assert_eq!(Card::decode(&[0; 128]), Err("runs another program".into()));
        let mut bytes = card("b0").encode();
        bytes[4] = 9;
        assert_eq!(Card::decode(&bytes), Err("has cards of format 9, and this program has format 3".into()));
    }

    /// Every item that must be alike is named, with both values.
    #[test]
    fn what_differs_is_named() {
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            Card { numbers: Numbers::new(&config, Split::Rows), ..card("b1") }
        };
        let own = card("b1");
        let cases = [
            (
                Card { version: [0, 2, 1], ..own.clone() },
                "the version of armlet is 0.2.1, and on board b0 (rank 0) 0.1.0",
            ),
            (
                Card { model: 7, ..own.clone() },
                "the model is 0000000000000007, and on board b0 (rank 0) 123456789abcdef0",
            ),
            (
                Card { numbers: Numbers::new(&Config::default(), Split::Tokens), ..own.clone() },
                "split is tokens, and on board b0 (rank 0) rows",
            ),
            (with(|c| c.context = 2048), "context is 2048, and on board b0 (rank 0) 4096"),
            (with(|c| c.chunk = 64), "chunk is 64, and on board b0 (rank 0) 128"),
            (with(|c| c.logit_rows = 2), "rows of logits is 2, and on board b0 (rank 0) 1"),
            (with(|c| c.kv = KvType::Int8), "KV type is int8, and on board b0 (rank 0) f16"),
            (with(|c| c.hadamard = true), "Hadamard is on, and on board b0 (rank 0) off"),
            (with(|c| c.pattern = Pattern::Full), "pattern is full, and on board b0 (rank 0) sinks"),
            (
                with(|c| c.pattern = Pattern::Strided { every: 2 }),
                "pattern is strided:2, and on board b0 (rank 0) sinks",
            ),
            (with(|c| c.sinks = 5), "sinks is 5, and on board b0 (rank 0) 4"),
            (with(|c| c.prefix = 6), "prefix is 6, and on board b0 (rank 0) 0"),
            (with(|c| c.slack = 1), "slack is 1, and on board b0 (rank 0) 0"),
            (
                Card { backend: "neon".into(), any_backend: false, ..own.clone() },
                "the instruction set (ARMLET_CPU) is neon, and on board b0 (rank 0) dotprod",
            ),
        ];
        for (other, why) in cases {
            assert_eq!(compare(&[card("b0"), other]), Err(format!("board b1 (rank 1): {why}")));
        }
    }

    /// What may differ may.
    #[test]
    fn boards_need_not_be_alike() {
        let other = Card { backend: "neon".into(), threads: 2, cpus: [2, 2], bandwidth: 0, ..card("b1") };
        assert_eq!(compare(&[card("b0"), other]), Ok(()));
        // More threads than CPUs are not the launcher's doing.
        assert_eq!(compare(&[Card { threads: 9, ..card("b0") }]), Ok(()));
    }

    #[test]
    fn too_little_of_a_board_is_a_limit() {
        let pinned = Card { cpus: [1, 4], ..card("b1") };
        assert_eq!(
            compare(&[card("b0"), pinned]),
            Err("board b1 (rank 1): 4 threads, and the launcher has pinned it to 1 of its 4 CPUs: start with --bind-to none"
                .into())
        );
        let full = Card { needed: 1_501, ..card("b1") };
        assert_eq!(
            compare(&[card("b0"), full]),
            Err("board b1 (rank 1): 1501 MiB are needed, and 1500 MiB are available; a shorter context (-c), more boards or \
                 other --shares need less"
                .into())
        );
        // Two on one machine need twice as much.
        let why = compare(&[card("b0"), card("b0")]).unwrap_err();
        assert!(why.starts_with("board b0 (rank 0): 2000 MiB are needed, and 1500 MiB are available"), "{why}");
    }

    /// As new boards are, all called the same: neither's memory is the other's.
    #[test]
    fn two_boards_of_one_name_are_told_apart() {
        let why = compare(&[card("b0"), card("b1"), Card { boot: 6, ..card("b0") }]).unwrap_err();
        assert!(why.starts_with("two boards are called b0, rank 0 and rank 2: "), "{why}");
    }
}
