//! What can be wrong with a file.

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Problem {
    /// Rule H1.
    #[error("not a GGUF file: it does not start with \"GGUF\"")]
    Magic,
    /// Rule H2.
    #[error("GGUF version {0} is not supported; convert the file to version 3")]
    Version(u32),
    /// Rule H3.
    #[error("the file is big-endian; convert it with gguf_convert_endian.py")]
    BigEndian,
    /// Rule H4.
    #[error("the header promises more than 65536 metadata entries or tensors")]
    Count,
    /// Rules H5, K1, T8.
    #[error("the file is truncated: it is shorter than its header says; fetch it again")]
    Truncated,
    /// Rule K2.
    #[error("a string is longer than 1 MiB, a key than 64 KiB, or all keys together than 4 MiB")]
    StringTooLong,
    /// Rule K2.
    #[error("a metadata key is empty or not UTF-8")]
    Key,
    /// Rule K3 and T1.
    #[error("two metadata keys, or two tensors, have the same name")]
    Duplicate,
    /// Rule K4.
    #[error("unknown metadata type {0}")]
    ValueType(u32),
    /// Rule K5.
    #[error("a metadata array has arrays as elements, which is not supported")]
    NestedArray,
    /// Rule K5.
    #[error("an array has more than 4194304 elements")]
    ArrayTooLong,
    /// Rule K8.
    #[error("general.alignment must be a u32, a power of two from 8 to 1048576")]
    Alignment,
    /// Rule T1.
    #[error("a tensor name is longer than 63 bytes or not UTF-8")]
    TensorName,
    /// Rules T2, T3, T5, T6.
    #[error("a tensor's shape is empty, overflows, or is not a whole number of blocks")]
    TensorShape,
    /// Rule T4.
    #[error("unknown tensor type {0}; requantise the model, for example to Q4_K_M or Q8_0")]
    TensorType(u32),
    /// Rule T8, for Q2_0.
    #[error(
        "a tensor of type 42 has not the size of Q2_0, groups of 64 weights; it may be of a fork's groups of 128, or cut off"
    )]
    Q2Groups,
    /// Rules T2 and T4 together.
    #[error("a packed tensor does not have two dimensions; only matrices may be packed")]
    PackedShape,
    /// Rules T7 and T8.
    #[error("a tensor's offset is not aligned, or its data overlap those of another tensor")]
    TensorOffset,
}

/// A malformed file: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[error("{problem} (at byte {offset})")]
pub struct GgufError {
    /// What is wrong.
    pub problem: Problem,
    /// Where in the file it was found, in bytes from the start.
    pub offset: u64,
}
