//! Tokens that may be chosen.

/// A token and its logit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: u32,
    /// Its logit, later its weight.
    pub logit: f32,
}

/// The most tokens that top-k keeps. Beyond them probabilities are negligible, and the limit makes memory fixed.
pub const CANDIDATES: usize = 1024;

/// Whether `a` comes before `b`: it is likelier, or as likely with a lower id.
pub(super) fn better(a: &Candidate, b: &Candidate) -> bool {
    a.logit > b.logit || (a.logit == b.logit && a.token < b.token)
}
