//! What several boards would make of a model: the memory of each, the bytes between them, and how long a token takes, for
//! each way to share the model. Modelled, from what boards and networks were measured to do; nothing is run.

use armlet::engine::{Config, Plan};
use armlet::gguf::File;
use armlet::model::{Hparams, Share, ShareError, Shares, Split, Weights};
use armlet::sample::SamplerConfig;
use armlet::storage::LEAF;

use crate::shares::Wanted;

/// Bytes of a number as it travels between matrices that are not quantised.
const F32: f64 = 4.0;
/// Bytes of a number that travels as the next matrix takes it: int8 with a scale for 32.
const INT8: f64 = 1.125;
/// How much faster boards must be together before it is worth a network, a switch and their failures.
const WORTH: f64 = 1.1;

/// A network between boards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Network {
    /// Payload, in bytes per second in each direction.
    pub(crate) speed: f64,
    /// Seconds of an exchange of nothing, waking up included.
    pub(crate) latency: f64,
}

impl Network {
    /// Parses `1gbit,0.12ms`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not a rate and a latency, such as 1gbit,0.12ms".to_string();
        let (rate, latency) = text.split_once(',').ok_or_else(wrong)?;
        let number = |text: &str, units: [(&str, f64); 2]| {
            let (unit, scale) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
            let number: f64 = text[..text.len() - unit.len()].trim().parse().ok()?;
            Some(number * scale).filter(|x| x.is_finite() && *x > 0.0)
        };
        let rate = number(&rate.to_ascii_lowercase(), [("gbit", 1e9), ("mbit", 1e6)]).ok_or_else(wrong)?;
        let latency = number(&latency.to_ascii_lowercase(), [("ms", 1e-3), ("us", 1e-6)]).ok_or_else(wrong)?;
        // Of 1,538 bytes of a frame on the wire 1,448 are TCP's payload.
        Ok(Network { speed: rate / 8.0 * 1448.0 / 1538.0, latency })
    }
}

/// What a token costs the board that has most to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token {
    /// Seconds in which weights and the cache are read from memory.
    pub(crate) reading: f64,
    /// Exchanges, one after another.
    pub(crate) exchanges: f64,
    /// Bytes that pass a board's port one after another.
    pub(crate) bytes: f64,
}

impl Token {
    /// Seconds: a token waits for memory and for the network, since the next layer needs what the exchange brings.
    pub(crate) fn seconds(&self, network: Network) -> f64 {
        self.reading + self.exchanges * network.latency + self.bytes / network.speed
    }
}

/// Bytes of a model's tensors, by how they are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sizes {
    /// Matrices of the queries, keys and values of all layers: by heads.
    pub(crate) qkv: f64,
    /// Their other tensors: by rows.
    pub(crate) layers: f64,
    /// The matrix behind the layers, and what else is not of a layer.
    pub(crate) head: f64,
    /// The matrix behind the layers alone.
    pub(crate) output: f64,
    /// The embedding, where it is another matrix: a token reads one row.
    pub(crate) embedding: f64,
    /// Whether inputs of matrices are int8.
    pub(crate) quantised: bool,
}

impl Sizes {
    pub(crate) fn new(file: &File<'_>) -> Self {
        let mut sizes = Sizes { quantised: true, ..Sizes::default() };
        let tied = file.tensor("output.weight").is_none();
        for t in file.tensors() {
            let name = t.name.strip_prefix("blk.").map_or("", |rest| rest.split_once('.').map_or("", |(_, name)| name));
            let place = match name {
                "" if t.name == "token_embd.weight" && !tied => &mut sizes.embedding,
                "" => &mut sizes.head,
                _ if ["attn_q.", "attn_k.", "attn_v.", "attn_qkv."].iter().any(|q| name.starts_with(q)) => {
                    &mut sizes.qkv
                }
                _ => &mut sizes.layers,
            };
            *place += t.data.len() as f64;
            if t.name == if tied { "token_embd.weight" } else { "output.weight" } {
                sizes.output = t.data.len() as f64;
            }
            let is_float = t.kind.format().is_none_or(|(dtype, _)| !dtype.is_quantised());
            sizes.quantised &= t.name == "token_embd.weight" || !Weights::is_matrix(t.name) || !is_float;
        }
        sizes
    }

    /// The weights of all layers.
    fn all_layers(&self) -> f64 {
        self.qkv + self.layers
    }
}

/// A model with its cache, on boards.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) h: Hparams,
    pub(crate) sizes: Sizes,
    /// All positions of the cache are attended to.
    pub(crate) config: Config,
    /// Bytes per second that each board reads from memory.
    pub(crate) memory: Vec<f64>,
    /// Shares of the boards, and how they were asked for.
    pub(crate) shares: Shares,
    pub(crate) wanted: Wanted,
    pub(crate) network: Network,
}

/// Bytes per second that each of so many boards reads from memory, of which one number was given, or one for each.
pub(crate) fn speeds(given: &[usize], boards: usize) -> Result<Vec<f64>, String> {
    let speeds: Vec<f64> = given.iter().map(|speed| (*speed).max(1) as f64).collect();
    match speeds[..] {
        [speed] => Ok(vec![speed; boards]),
        _ if speeds.len() == boards => Ok(speeds),
        _ => Err(format!("--memory-speed: {} speeds, and {boards} boards", speeds.len())),
    }
}

/// What the board with the largest share has, and what a token costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) weights: f64,
    pub(crate) workspace: f64,
    pub(crate) session: f64,
    pub(crate) token: Token,
}

impl Cluster {
    /// One board with everything: the fastest.
    pub(crate) fn alone(&self) -> Row {
        let weights = self.sizes.all_layers() + self.sizes.head;
        let [workspace, session] = self.planned(&Share::WHOLE);
        let fastest = self.memory.iter().copied().fold(0.0, f64::max);
        let token = Token { reading: (weights + session) / fastest, exchanges: 0.0, bytes: 0.0 };
        Row { weights: weights + self.sizes.embedding, workspace, session, token }
    }

    /// Bytes of a board's workspace and of its session.
    fn planned(&self, share: &Share) -> [f64; 2] {
        // What one board can have, a part of it can: the plan of one board was made before.
        let plan = Plan::shared(&self.h, &self.config, share);
        plan.map_or([f64::NAN; 2], |plan| [plan.engine_bytes() as f64, plan.session_bytes() as f64])
    }

    /// Those of the boards that have most.
    fn most_planned(&self, shares: &[Share]) -> [f64; 2] {
        [0, 1].map(|i| largest(shares, |share| self.planned(share)[i]))
    }

    /// How many boards there are.
    fn boards(&self) -> usize {
        self.memory.len()
    }

    /// The shares of all boards.
    fn shares(&self, split: Split) -> Result<Vec<Share>, ShareError> {
        let [output, layers] = [self.sizes.output, self.sizes.all_layers()].map(|bytes| bytes as usize);
        let head = Weights::in_layers(output, layers, self.h.n_layers);
        let shares =
            if self.wanted.of_split(split) == Wanted::Even { Shares::even(self.boards()) } else { self.shares };
        let share = |rank| Share::uneven(&self.h, split, head, self.config.context, rank, shares);
        (0..self.boards()).map(share).collect()
    }

    /// Seconds in which each board reads so many bytes from its memory.
    fn reading<'c>(
        &'c self,
        shares: &'c [Share],
        bytes: impl Fn(&Share) -> f64 + 'c,
    ) -> impl Iterator<Item = f64> + 'c {
        shares.iter().zip(&self.memory).map(move |(share, speed)| bytes(share) / speed)
    }

    /// Boards that share it.
    pub(crate) fn shared(&self, split: Split) -> Result<Row, ShareError> {
        let shares = self.shares(split)?;
        Ok(match split {
            Split::Layers => self.by_layers(&shares),
            Split::Rows => self.by_rows(&shares),
            Split::Tokens => self.by_tokens(&shares),
        })
    }

    /// A token is on each board in turn, and comes back to the first, which has the matrix behind the layers.
    fn by_layers(&self, shares: &[Share]) -> Row {
        let (s, layers) = (&self.sizes, self.h.n_layers as f64);
        let [workspace, session] = self.most_planned(shares);
        let read = |share: &Share| {
            let own = s.all_layers() * share.layers(&self.h).len() as f64 / layers;
            own + if share.has_head() { s.head } else { 0.0 }
        };
        let weights = |share: &Share| read(share) + if share.has_head() { s.embedding } else { 0.0 };
        let hops = self.boards() as f64;
        let token = Token {
            reading: self.reading(shares, |share| read(share) + self.planned(share)[1]).sum(),
            exchanges: hops + 1.0,
            bytes: hops * F32 * self.h.n_embd as f64,
        };
        Row { weights: largest(shares, weights), workspace, session, token }
    }

    /// Each board has some rows of each matrix; what they give is gathered four times a layer, and its best logits at the end.
    fn by_rows(&self, shares: &[Share]) -> Row {
        let (h, s) = (&self.h, &self.sizes);
        let of = |range: std::ops::Range<usize>, all: usize| range.len() as f64 / all as f64;
        let read = |share: &Share| {
            let heads = of(share.kv_heads(h), h.n_kv_heads);
            let head = s.head * of(share.rows(h.vocab), h.vocab);
            s.qkv * heads + s.layers * of(share.rows(h.n_embd), h.n_embd) + head
        };
        let [workspace, session] = self.most_planned(shares);
        let input = if s.quantised { INT8 } else { F32 };
        let others = (self.boards() - 1) as f64;
        // What it has computed goes to each other board, and theirs come: through its port, in both directions at once.
        let all: f64 = shares.iter().map(|share| self.rows_bytes(share, input)).sum();
        let port = |share: &Share| {
            let own = self.rows_bytes(share, input);
            (others * own).max(all - own)
        };
        let token = Token {
            reading: self.reading(shares, |share| read(share) + self.planned(share)[1]).fold(0.0, f64::max),
            exchanges: 4.0 * h.n_layers as f64 + 2.0,
            bytes: largest(shares, port),
        };
        // Rows of the embedding are met as they come; the matrix behind the layers is the same tensor, or it is another.
        Row { weights: largest(shares, read) + s.embedding, workspace, session, token }
    }

    /// Bytes of what a board computes by rows of a token that the others need; a number of a matrix's input has `input`.
    fn rows_bytes(&self, share: &Share, input: f64) -> f64 {
        let h = &self.h;
        let of = |columns: std::ops::Range<usize>| columns.len() as f64;
        let heads = of(share.kv_heads(h)) * h.group() as f64;
        let layer = |layer| {
            let attended = heads * h.head_of(layer).dim as f64;
            input * (attended + of(share.rows(h.n_ff))) + 2.0 * F32 * of(share.rows(h.n_embd))
        };
        // A token and its logit, of those that are the best on each board, or all logits.
        let logits = match share.candidates(h.vocab, SamplerConfig::default().top_k) {
            Some(candidates) => 2.0 * F32 * candidates as f64,
            None => F32 * of(share.rows(h.vocab)),
        };
        (0..h.n_layers).map(layer).sum::<f64>() + logits
    }

    /// Each board has all weights, and gathers the sums of its blocks of positions once a layer.
    fn by_tokens(&self, shares: &[Share]) -> Row {
        let h = &self.h;
        let (alone, [workspace, session]) = (self.alone(), self.most_planned(shares));
        let sum = |layer| (h.q_dim(layer) + 2 * h.n_heads) as f64 * F32;
        // A sum for each block of the board that has most of them.
        let leaves = shares.iter().map(Share::leaves).max().unwrap_or(1);
        let sums = self.config.context.div_ceil(LEAF).div_ceil(leaves).div_ceil(self.boards()) as f64;
        let read = |share: &Share| self.sizes.all_layers() + self.sizes.head + self.planned(share)[1];
        let token = Token {
            reading: self.reading(shares, read).fold(0.0, f64::max),
            exchanges: h.n_layers as f64 + 1.0,
            bytes: (self.boards() - 1) as f64 * sums * (0..h.n_layers).map(sum).sum::<f64>(),
        };
        Row { weights: alone.weights, workspace, session, token }
    }

    /// Seconds of a token.
    fn seconds(&self, row: &Row) -> f64 {
        row.token.seconds(self.network)
    }

    /// What to do with so many boards.
    fn advice(&self) -> String {
        let alone = self.seconds(&self.alone());
        let times = self.shared(Split::Rows).ok().map(|row| alone / self.seconds(&row));
        match times.filter(|times| *times >= WORTH) {
            Some(times) => format!(
                "By rows an answer comes {times:.1} times as fast as from one board. By layers it is no faster, but less \
                 travels: for a model that does not fit one board, on a slow network."
            ),
            None => format!(
                "Take one board if the model fits it: no split makes a short answer faster. {} boards with a program each \
                 serve as many people at a time. By layers for a model that does not fit; by tokens for long prompts, and \
                 for contexts that do not fit.",
                self.boards()
            ),
        }
    }

    /// One board, and each split: its name, and what it takes, or why it cannot be.
    fn rows(&self) -> impl Iterator<Item = (&'static str, Result<Row, ShareError>)> {
        let splits = Split::ALL.map(|split| (split.name(), self.shared(split)));
        std::iter::once(("none", Ok(self.alone()))).chain(splits)
    }

    pub(crate) fn table(&self) -> String {
        let network = self.network;
        let memory: Vec<String> = self.memory.iter().map(|speed| format!("{:.1}", speed / 1e9)).collect();
        let memory = if memory.iter().all(|speed| *speed == memory[0]) { &memory[0] } else { &memory.join(", ") };
        let shares = if self.shares.are_even() { String::new() } else { format!(" in shares of {}", self.shares) };
        let mut out = format!(
            "{} boards{shares} that read {memory} GB/s, {:.1} MB/s and {:.2} ms between them, context full; modelled, not measured.\n\n\
             | split | weights of a board | workspace | session | exchanges a token | bytes a token | ms a token |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
            self.boards(),
            network.speed / 1e6,
            network.latency * 1e3
        );
        for (name, row) in self.rows() {
            out += &match row {
                Ok(row) => format!(
                    "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |\n",
                    row.weights,
                    row.workspace,
                    row.session,
                    row.token.exchanges,
                    row.token.bytes,
                    self.seconds(&row) * 1e3
                ),
                Err(e) => format!("| {name} | {e} | | | | | |\n"),
            };
        }
        format!("{out}\n{}\n", self.advice())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let split = |(name, row): (&str, Result<Row, ShareError>)| match row {
            Ok(row) => {
                serde_json::json!({ "split": name, "weights": row.weights.round() as u64, "workspace": row.workspace.round() as u64,
                "session": row.session.round() as u64, "exchanges_per_token": row.token.exchanges.round() as u64,
                "bytes_per_token": row.token.bytes.round() as u64, "ms_per_token": self.seconds(&row) * 1e3 })
            }
            Err(e) => serde_json::json!({ "split": name, "error": e.to_string() }),
        };
        serde_json::json!({ "boards": self.boards(), "shares": self.shares.to_string(), "splits": self.rows().map(split).collect::<Vec<_>>(),
                            "advice": self.advice() })
    }
}

fn largest(shares: &[Share], of: impl Fn(&Share) -> f64) -> f64 {
    shares.iter().map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of a model that others ran, in Q4_0.
    struct Peer {
        layers: f64,
        embd: f64,
        heads: f64,
        kv_heads: f64,
        head_dim: f64,
        ff: f64,
        vocab: f64,
    }

    /// How others exchange what is to be summed, twice a layer.
    #[derive(Clone, Copy)]
    enum Exchange {
        /// f32, to one board and back: NanoCamelid.
        Star,
        /// int8 with a scale for 32, from each to each: distributed-llama.
        Int8,
    }

    const fn peer([layers, embd, heads, kv_heads, head_dim, ff, vocab]: [f64; 7]) -> Peer {
        Peer { layers, embd, heads, kv_heads, head_dim, ff, vocab }
    }

    const LLAMA_1B: Peer = peer([16.0, 2048.0, 32.0, 8.0, 64.0, 8192.0, 128_256.0]);
    const LLAMA_3B: Peer = peer([28.0, 3072.0, 24.0, 8.0, 128.0, 8192.0, 128_256.0]);
    const QWEN_7B: Peer = peer([28.0, 3584.0, 28.0, 4.0, 128.0, 18_944.0, 152_064.0]);
    const LLAMA_8B: Peer = peer([32.0, 4096.0, 32.0, 8.0, 128.0, 14_336.0, 128_256.0]);
    const LLAMA_70B: Peer = peer([80.0, 8192.0, 64.0, 8.0, 128.0, 28_672.0, 128_256.0]);

    impl Peer {
        /// `memory`: bytes per second.
        fn token(&self, boards: f64, memory: f64, exchange: Exchange) -> Token {
            let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
            let heads = (self.kv_heads / boards).ceil() / self.kv_heads;
            let layer = self.embd * (q + 2.0 * kv) * heads + (q + 3.0 * self.ff) * self.embd / boards;
            let others = boards - 1.0;
            let (each, last) = match exchange {
                Exchange::Star => (16.0 * self.embd, 320.0),
                Exchange::Int8 => (2.0 * self.embd * 34.0 / 32.0, 0.0),
            };
            Token {
                reading: (self.layers * layer + self.vocab * self.embd / boards) * 18.0 / 32.0 / memory,
                exchanges: 2.0 * self.layers + 2.0,
                bytes: (self.layers * each + last) * others,
            }
        }
    }

    /// What others measured on Raspberry Pi 5 with gigabit Ethernet, in tokens per second: NanoCamelid's five runs with two
    /// and three boards, and a fork of distributed-llama with four.
    #[test]
    fn published_runs_are_within_a_tenth() {
        let network = Network::parse("1gbit,0.12ms").unwrap();
        let runs = [
            (&LLAMA_1B, 2.0, Exchange::Star, 23.19),
            (&LLAMA_3B, 2.0, Exchange::Star, 9.51),
            (&LLAMA_3B, 3.0, Exchange::Star, 11.54),
            (&QWEN_7B, 2.0, Exchange::Star, 5.08),
            (&LLAMA_70B, 3.0, Exchange::Star, 0.700),
            (&LLAMA_8B, 4.0, Exchange::Int8, 8.36),
        ];
        for (model, boards, exchange, measured) in runs {
            let rate = 1.0 / model.token(boards, 11e9, exchange).seconds(network);
            assert!((rate / measured - 1.0).abs() < 0.1, "{boards} boards: {rate:.2}, measured {measured}");
        }
    }

    #[test]
    fn a_network_is_a_rate_and_a_latency() {
        let network = Network::parse("100Mbit,200us").unwrap();
        assert!((network.speed / 11.77e6 - 1.0).abs() < 1e-3 && (network.latency - 2e-4).abs() < 1e-9);
        for wrong in
            ["", "1gbit", "1gbit,", "1gbit,5", "5,1ms", "-1gbit,1ms", "0gbit,1ms", "1gbit,nanms", "1gbit,0.1ms,2"]
        {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }
}
