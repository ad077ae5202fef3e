//! Planning: every byte of an engine and a session, before either exists.

use super::EngineError;
use crate::arch::KvType;
use crate::model::{BufferSizes, Buffers, CacheShape, Hparams, KvCache, KvGroups, Share};
#[cfg(feature = "boards")]
use crate::model::{MergeTree, Split};
use crate::storage::{Arena, Region, Ring, TILE};

/// Most tokens of one pass: many, so that weights are read from memory seldom; few enough for small CPU caches.
const MAX_CHUNK: usize = 4096;

/// Attention pattern: which earlier tokens a token attends to, in layers without a sliding window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pattern {
    /// All, until the context is full.
    Full,
    /// The last ones (sliding window).
    Window,
    /// The first few and the last ones (StreamingLLM: Xiao et al. 2023, arXiv 2309.17453).
    #[default]
    Sinks,
    /// Those, and every `every`-th tile of 32 positions in between: the window and the kept tiles have half the context
    /// each.
    Strided {
        /// At least 2.
        every: usize,
    },
}

/// Sizes that the user chooses. Defaults are those of [`Config::default`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most tokens that a token attends to; with [`Pattern::Full`] also the most that a session can read. 4096 by default,
    /// which [`Plan::new`] refuses for a model of less.
    pub context: usize,
    /// Which tokens those are. [`Pattern::Sinks`] by default.
    pub pattern: Pattern,
    /// How many of the first tokens are never evicted (attention sinks), with a pattern that has sinks. 4 by default.
    pub sinks: usize,
    /// Tokens of a shared prefix, which takes the place of the sinks; 0, the default, for none.
    pub prefix: usize,
    /// Tokens by which a session can always be rewound, even after eviction. 0 by default.
    pub slack: usize,
    /// Most tokens of one pass: of a prompt chunk, or of a batch; of each board, where several divide a prompt. 128 by default.
    pub chunk: usize,
    /// Most tokens of one pass with logits: 1, the default, for one session, or as many as are decoded or scored together.
    pub logit_rows: usize,
    /// Number format of the KV cache. [`KvType::F16`] by default.
    pub kv: KvType,
    /// Whether keys are stored Hadamard-transformed, which spreads outliers and makes int8 more precise. `false` by default.
    pub hadamard: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            context: 4096,
            pattern: Pattern::Sinks,
            sinks: 4,
            prefix: 0,
            slack: 0,
            chunk: 128,
            logit_rows: 1,
            kv: KvType::F16,
            hadamard: false,
        }
    }
}

/// The exact memory of an engine, and of each of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    sizes: BufferSizes,
    cache: CacheShape,
    limit: Option<u64>,
    engine: usize,
    session: usize,
}

impl Plan {
    /// The plan for a model of these sizes. Allocates nothing, and can be made on a PC for a board.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a value out of range; [`EngineError::Arena`] where the sum overflows.
    pub fn new(h: &Hparams, config: &Config) -> Result<Self, EngineError> {
        Self::shared(h, config, &Share::WHOLE)
    }

    /// The plan of a board that has a share of the model.
    ///
    /// # Errors
    /// As [`new`](Plan::new).
    pub fn shared(h: &Hparams, config: &Config, share: &Share) -> Result<Self, EngineError> {
        check("context", config.context, 1, h.context_length)?;
        check("chunk", config.chunk, 1, MAX_CHUNK)?;
        check("logit_rows", config.logit_rows, 1, config.chunk)?;
        if !config.kv.is_built() {
            return Err(EngineError::KvType);
        }
        let (groups, limit) = groups(h, config)?;
        // A pass of one session is no longer than what the session can read.
        let longest = if limit.is_some() { config.context } else { usize::MAX };
        let chunk = config.chunk.min(longest.max(config.logit_rows));
        // What is never evicted from begins with the first position.
        let full = limit.map_or(groups.full.most_parts(), |limit| groups.full.attended(limit - 1).parts());
        let parts = groups.windowed.map_or(0, |r| r.most_parts()).max(full);
        let sizes = BufferSizes {
            chunk,
            pass: share.most_tokens(chunk).min(longest.max(chunk)),
            logit_rows: config.logit_rows,
            parts,
            share: *share,
            roots: roots(&groups, share),
            states: states(&groups, share, chunk),
            kv_type: config.kv,
        };
        let cache = CacheShape {
            groups,
            kv_type: config.kv,
            hadamard: config.hadamard,
            shared: config.prefix > 0,
            share: *share,
        };
        let (engine, session) = carve(h, &sizes, &cache, &mut Arena::dry_run())?;
        Ok(Self { sizes, cache, limit, engine, session })
    }

    /// The largest context, at most the trained one, with which `sessions` sessions together fit `budget` bytes, with
    /// the rest of the configuration as given. Grows with the budget.
    ///
    /// # Errors
    /// [`EngineError::Budget`] when not even the smallest context fits; otherwise as [`Plan::new`].
    pub fn context_for_budget(
        h: &Hparams,
        config: &Config,
        budget: usize,
        sessions: usize,
    ) -> Result<usize, EngineError> {
        let bytes = |config: &Config| Ok(Plan::new(h, config)?.session_bytes().saturating_mul(sessions.max(1)));
        Self::largest_context(h, config, budget, &bytes)
    }

    /// The same where sessions need `bytes` with a configuration, such as on boards that share a model.
    ///
    /// # Errors
    /// As [`context_for_budget`](Plan::context_for_budget), and those of `bytes`.
    pub fn largest_context(
        h: &Hparams,
        config: &Config,
        budget: usize,
        bytes: &dyn Fn(&Config) -> Result<usize, EngineError>,
    ) -> Result<usize, EngineError> {
        let needed = |context| match bytes(&Config { context, ..*config }) {
            // What overflows the address space fits no budget.
            Err(EngineError::Arena(_)) => Ok(usize::MAX),
            needed => needed,
        };
        let least = least_context(config).min(h.context_length);
        let fits = |context| Ok::<_, EngineError>(needed(context)? <= budget.min(usize::MAX - 1));
        // The bytes grow with the context, but drop where it exceeds the sliding window and layers get a ring of that
        // size.
        let windows = h.window.as_ref().map_or(h.context_length, |w| w.size.clamp(least, h.context_length));
        for (first, last) in [(windows.saturating_add(1), h.context_length), (least, windows)] {
            if first > last || !fits(first)? {
                continue;
            }
            let (mut largest, mut beyond) = (first, last + 1);
            while beyond - largest > 1 {
                let middle = largest + (beyond - largest) / 2;
                if fits(middle)? { largest = middle } else { beyond = middle }
            }
            return Ok(largest);
        }
        Err(EngineError::Budget { budget, least, needed: needed(least)? })
    }

    /// Bytes that an engine and one session need together.
    pub fn bytes(&self) -> usize {
        self.engine + self.session
    }

    /// Bytes that an engine needs; a multiple of [`ALIGN`](crate::storage::ALIGN).
    pub fn engine_bytes(&self) -> usize {
        self.engine
    }

    /// Bytes that each session needs; a multiple of [`ALIGN`](crate::storage::ALIGN).
    pub fn session_bytes(&self) -> usize {
        self.session
    }

    /// Most tokens that a token attends to, in layers without a sliding window.
    pub fn context(&self) -> usize {
        self.cache.groups.full.capacity()
    }

    /// Tokens that are never evicted, in layers without a sliding window.
    pub fn sinks(&self) -> usize {
        self.cache.groups.full.sinks
    }

    /// Format of the KV cache.
    pub fn kv_type(&self) -> KvType {
        self.cache.kv_type
    }

    /// Most tokens that a session can read; `None` with a pattern that evicts.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// The sizes of an engine.
    pub(super) fn sizes(&self) -> &BufferSizes {
        &self.sizes
    }

    /// The sizes of a session.
    pub(super) fn cache(&self) -> &CacheShape {
        &self.cache
    }

    /// Reports every buffer of an engine and one session behind it, in order.
    ///
    /// # Errors
    /// None: the plan exists, so its sizes do not overflow.
    pub fn regions(&self, h: &Hparams, observer: &mut dyn FnMut(Region)) -> Result<(), EngineError> {
        carve(h, &self.sizes, &self.cache, &mut Arena::dry_run_with(observer))?;
        Ok(())
    }
}

/// Most sums of attention that a board has of a token.
fn roots(groups: &KvGroups, share: &Share) -> usize {
    #[cfg(feature = "boards")]
    if share.is(Split::Tokens) {
        let of = |ring: &Ring| share.blocks().most_attended(ring);
        return of(&groups.full).max(groups.windowed.as_ref().map_or(0, of));
    }
    let _ = (groups, share);
    0
}

/// Most sums of attention that wait, of a token of a prompt that boards divide.
fn states(groups: &KvGroups, share: &Share, chunk: usize) -> usize {
    #[cfg(feature = "boards")]
    if share.divides(chunk) {
        return MergeTree::most_states_of(&groups.full)
            .max(groups.windowed.as_ref().map_or(0, MergeTree::most_states_of));
    }
    let _ = (groups, share, chunk);
    0
}

/// Positions that are never evicted.
fn sinks(config: &Config) -> usize {
    match config.pattern {
        _ if config.prefix > 0 => config.prefix,
        Pattern::Full | Pattern::Window => 0,
        Pattern::Sinks | Pattern::Strided { .. } => config.sinks,
    }
}

fn least_context(config: &Config) -> usize {
    let window = if matches!(config.pattern, Pattern::Strided { .. }) { 2 * TILE } else { 1 };
    sinks(config).saturating_add(window)
}

/// The rings of a configuration, and how many tokens a session can read if nothing is evicted.
fn groups(h: &Hparams, config: &Config) -> Result<(KvGroups, Option<u64>), EngineError> {
    let (context, sinks) = (config.context, sinks(config));
    let name = if config.prefix > 0 { "prefix" } else { "sinks" };
    let window = least_context(config) - sinks;
    check("context", context, window, h.context_length)?;
    check(name, sinks, 0, context - window)?;
    check("slack", config.slack, 0, h.context_length)?;
    let others = context - sinks;
    let ring = match config.pattern {
        Pattern::Full => Ring::new(sinks, others, 0),
        Pattern::Window | Pattern::Sinks => Ring::new(sinks, others, config.slack),
        Pattern::Strided { every } => {
            check("every", every, 2, h.context_length)?;
            let window = others.div_ceil(2).next_multiple_of(TILE).min(others - TILE);
            // No further back than the model was trained to attend; if that is less than one tile, the window has all.
            let reach = h.context_length.saturating_sub(window + sinks) / (every * TILE).max(1);
            match ((others - window) / TILE).min(reach) {
                0 => Ring::new(sinks, others, config.slack),
                kept => Ring::strided(sinks, window, config.slack, every, kept),
            }
        }
    };
    let full = ring.ok_or(EngineError::Config { name: "context", value: context, min: 1, max: h.context_length })?;
    // Kept tiles are further back than the context is long.
    let reach = if full.is_strided() { h.context_length } else { context };
    let windowed = match &h.window {
        Some(w) if w.size < reach => Ring::new(0, w.size, config.slack),
        // A window that is no narrower is none, but one buffer has heads of one size.
        Some(w) if w.head.dim != h.head.dim => Some(full),
        _ => None,
    };
    if windowed.is_some() && config.prefix > 0 {
        return Err(EngineError::PrefixAndWindows);
    }
    let limit = (config.pattern == Pattern::Full).then_some(context as u64);
    Ok((KvGroups { full, windowed }, limit))
}

/// Bytes of an engine, and of a session, carved from an arena.
fn carve<'a>(
    h: &Hparams,
    sizes: &BufferSizes,
    cache: &CacheShape,
    arena: &mut Arena<'a>,
) -> Result<(usize, usize), EngineError> {
    Buffers::new(h, sizes, arena)?;
    let engine = arena.used();
    KvCache::new(h, cache, arena)?;
    Ok((engine, arena.used() - engine))
}

fn check(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), EngineError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(EngineError::Config { name, value, min, max }) }
}
