//! The mistakes that `family_oracle.rs` can make.

/// What an implementation of a family can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Pairs of the other kind.
    RopePairs,
    /// All dimensions are rotated.
    RopeWidth,
    /// Factors of the frequencies ignored.
    FactorsIgnored,
    /// Frequencies multiplied by them.
    FactorsMultiplied,
    /// The long ones in a short context, and the other way round.
    LongForShort,
    /// `rope.scaling.factor` ignored.
    LinearNowhere,
    /// The factor of the full layers in windowed ones as well.
    LinearEverywhere,
    /// The multiplier of cosine and sine forgotten.
    RopeMultiplier,
    /// It twice.
    RopeMultiplierTwice,
    /// It as a factor of scores, and so of dimensions that are not rotated.
    RopeMultiplierOfScores,
    /// YaRN's ramp goes along dimensions.
    RampOfDims,
    /// Its ends are not whole pairs.
    RampEnds,
    /// Layer 0, 4, 8… have no rotation.
    NoRopeFirst,
    /// All layers are rotated.
    NoRopeIgnored,
    TemperatureIgnored,
    /// Also of keys.
    TemperatureOfKeys,
    /// Grows with each position.
    TemperatureSmooth,
    /// Scales of tensors ignored.
    TensorScales,
    /// Biases are scaled as well.
    ScaledBiases,
    BiasOfQ,
    BiasOfOutput,
    BiasOfUp,
    BiasOfDown,
    BiasOfLogits,
    BiasOfNorms,
    /// A norm of all heads together for one of each, and the other way round.
    QkNormWidth,
    /// After the rotation for before it, and the other way round.
    QkNormOrder,
    /// All heads have the weights of the first.
    QkNormOfFirstHead,
    /// The first layers of each period attend to all positions, not the last.
    GlobalFirst,
    /// The window is ignored.
    WindowIgnored,
    /// The window of a family that has none is honoured.
    WindowHonoured,
    WindowLonger,
    WindowShorter,
    /// Windowed layers rotate as the others do.
    WindowRope,
    /// Nothing is scaled in windowed layers.
    WindowUnscaled,
    /// In windowed layers the multiplier of cosine and sine is forgotten.
    WindowMultiplier,
    /// Windowed layers rotate as many dimensions as the others.
    WindowRopeWidth,
    /// Their scores are scaled for the heads of the others.
    WindowScale,
    AttentionCap,
    LogitsCap,
    EmbeddingScale,
    ResidualScale,
    /// Logits are multiplied instead of divided.
    LogitScale,
    /// 1/√head_dim whatever the file says.
    AttentionScale,
    /// 1 is added to the weights of norms, which the converter has done.
    NormsPlusOne,
    /// The norms behind the halves are left out.
    NormsBehind,
    /// The sub-norms are left out.
    NormsWithin,
    /// The mean is not subtracted.
    MeanKept,
    /// SiLU for another activation, or GELU for SiLU.
    Activation,
    /// The gate is the second half of a tensor of both.
    Halves,
    /// The FFN reads what attention has been added to.
    NotParallel,
    /// The embedding as output matrix although the file has one.
    Head,
}
