//! What `armlet doctor` found, for people and for programs.

use std::fmt::Write;
use std::path::PathBuf;

use armlet::arch::Backend;
use serde_json::{Value, json};

use super::disk::Mount;
use super::rate::Rate;
use super::system::{Core, System};
use crate::visible;

/// Everything that is shown.
pub(crate) struct Report {
    pub(crate) version: &'static str,
    pub(crate) system: System,
    pub(crate) page_bytes: usize,
    pub(crate) backend: Backend,
    /// Why it is this one.
    pub(crate) because: String,
    /// Bytes per second from memory; `None` if that was not measured.
    pub(crate) bandwidth: Option<Vec<Rate>>,
    pub(crate) model: Option<ModelReport>,
    /// Threads by default, and why so many.
    pub(crate) threads: (usize, String),
    /// Models, with the bytes that a token reads.
    pub(crate) known: Vec<(String, u64)>,
    pub(crate) advice: Vec<String>,
}

/// The model's file.
pub(crate) struct ModelReport {
    pub(crate) path: PathBuf,
    pub(crate) mount: Option<Mount>,
    /// Bytes per second from the disk.
    pub(crate) read: Option<f64>,
    /// Tokens per second by threads.
    pub(crate) decode: Vec<Rate>,
}

impl Report {
    fn best_bandwidth(&self) -> Option<f64> {
        self.bandwidth.as_ref().and_then(|rates| rates.iter().map(|rate| rate.per_second).reduce(f64::max))
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Names come from the board's firmware: no control character of theirs reaches a terminal. Writing to a String cannot
        // fail.
        let mut line = |name: &str, text: &str| {
            let _ = writeln!(out, "{name:<12} {}", visible::line(text));
        };
        let s = &self.system;
        line("armlet", self.version);
        line("board", s.board.as_deref().unwrap_or("unknown"));
        s.kinds().iter().for_each(|kind| line("cores", &of_kind(kind)));
        s.kernel.iter().for_each(|_| line("kernel", &kernel(s)));
        line("features", &if s.features.is_empty() { "none that kernels use".into() } else { s.features.join(", ") });
        line("backend", &format!("{}: {}", self.backend.name(), self.because));
        line("RAM", &memory(s, self.page_bytes));
        if let Some(degrees) = s.temperature {
            line("temperature", &format!("{degrees:.0} °C"));
        }
        match s.throttled {
            Some(0) => line("throttling", "none since the start"),
            Some(flags) => line("throttling", &format!("flags {flags:#x}, see below")),
            None => {}
        }
        if let Some((path, settings)) = &s.config {
            let settings: Vec<_> = settings.iter().map(|s| format!("{}={}", s.key, s.value)).collect();
            let settings = if settings.is_empty() { "nothing that changes speed".into() } else { settings.join(", ") };
            line("firmware", &format!("{}: {settings}", path.display()));
        }
        match &self.bandwidth {
            Some(rates) => line("bandwidth", &by_threads(rates, 1e9, "GB/s")),
            None => line("bandwidth", "not measured"),
        }
        if let Some(model) = &self.model {
            line("model", &model.text());
            if !model.decode.is_empty() {
                line("decode", &by_threads(&model.decode, 1.0, "tokens/s"));
            }
        }
        line("threads", &format!("{}: {}", self.threads.0, self.threads.1));
        for (name, bytes) in &self.known {
            line("could reach", &self.reach(name, *bytes));
        }
        for advice in &self.advice {
            line("advice", advice);
        }
        out
    }

    /// A token reads each weight once, so no model is faster than its bytes.
    fn reach(&self, name: &str, bytes: u64) -> String {
        let megabytes = bytes as f64 / 1e6;
        let rate = self.best_bandwidth().map(|rate| format!(", at most {:.1} tokens/s", rate / bytes as f64));
        let fits = self.system.free_ram.is_none_or(|free| bytes < free);
        let room = if fits { "" } else { "; more than the free RAM, so slower" };
        format!("{name}: {megabytes:.0} MB a token{}{room}", rate.unwrap_or_default())
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let s = &self.system;
        let rates = |rates: &[Rate], name: &str| -> Value {
            rates.iter().map(|rate| json!({ "threads": rate.threads, name: rate.per_second })).collect()
        };
        let cores: Vec<_> = s
            .cores
            .iter()
            .map(|core| {
                json!({ "cpu": core.number, "kind": core.kind, "capacity": core.capacity, "max_mhz": core.max_mhz,
                        "governor": core.governor, "allowed": s.allows(core.number) })
            })
            .collect();
        let config = s.config.as_ref().map(|(path, settings)| {
            let settings: serde_json::Map<_, _> =
                settings.iter().map(|s| (s.key.clone(), Value::from(s.value.clone()))).collect();
            json!({ "path": path.display().to_string(), "settings": settings })
        });
        let model = self.model.as_ref().map(|model| {
            let mount = model.mount.as_ref();
            json!({ "path": model.path.display().to_string(), "file_system": mount.map(|m| &m.kind),
                    "device": mount.map(|m| &m.device), "read_bytes_per_second": model.read,
                    "decode": rates(&model.decode, "tokens_per_second") })
        });
        let known: Vec<_> = self
            .known
            .iter()
            .map(|(name, bytes)| {
                json!({ "name": name, "bytes_per_token": bytes,
                        "most_tokens_per_second": self.best_bandwidth().map(|rate| rate / *bytes as f64) })
            })
            .collect();
        json!({
            "version": self.version,
            "board": s.board,
            "kernel": s.kernel,
            "kernel_arch": s.kernel_arch,
            "cores": cores,
            "features": s.features,
            "backend": self.backend.name(),
            "backend_because": self.because,
            "ram_bytes": s.ram,
            "free_ram_bytes": s.free_ram,
            "memory_nodes": s.memory_nodes,
            "load": s.load,
            "page_bytes": self.page_bytes,
            "temperature": s.temperature,
            "throttled": s.throttled,
            "config": config,
            "bandwidth": self.bandwidth.as_ref().map(|b| rates(b, "bytes_per_second")),
            "model": model,
            "threads": self.threads.0,
            "threads_because": self.threads.1,
            "known_models": known,
            "advice": self.advice,
        })
    }
}

impl ModelReport {
    fn text(&self) -> String {
        let mut out = self.path.display().to_string();
        // Writing to a String cannot fail.
        if let Some(mount) = &self.mount {
            let _ = write!(out, " on {} ({})", mount.device, mount.kind);
        }
        if let Some(rate) = self.read {
            let _ = write!(out, ", read at {:.0} MB/s", rate / 1e6);
        }
        out
    }
}

/// The kernel, with its architecture where it says that.
pub(crate) fn kernel(system: &System) -> String {
    let name = system.kernel.as_deref().unwrap_or("unknown");
    [Some(name), system.kernel_arch.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Cores of one kind.
pub(crate) fn of_kind(cores: &[&Core]) -> String {
    let Some(first) = cores.first() else { return String::new() };
    let mut about = Vec::new();
    about.extend(first.max_mhz.map(|mhz| format!("{mhz} MHz")));
    about.extend(first.capacity.map(|capacity| format!("capacity {capacity}")));
    about.extend(first.governor.as_ref().map(|governor| format!("governor {governor}")));
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    format!("{} × {}{about}", cores.len(), first.kind)
}

/// How much RAM there is.
pub(crate) fn memory(system: &System, page_bytes: usize) -> String {
    let mib = |bytes: Option<u64>| bytes.map_or("unknown".into(), |b| format!("{} MiB", b >> 20));
    let nodes =
        system.memory_nodes.filter(|nodes| *nodes > 1).map_or(String::new(), |nodes| format!("; {nodes} nodes"));
    format!("{}, of which {} free; pages of {} KiB{nodes}", mib(system.ram), mib(system.free_ram), page_bytes >> 10)
}

fn by_threads(rates: &[Rate], unit: f64, name: &str) -> String {
    let rates: Vec<_> = rates.iter().map(|r| format!("{:.1} with {}", r.per_second / unit, r.threads)).collect();
    format!("{} threads, in {name}", rates.join(", "))
}
