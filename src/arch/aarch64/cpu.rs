//! Feature detection: by the operating system, or without one the features that the program is compiled for.

/// Whether this CPU has an Armv8.2 or later feature of this name.
macro_rules! has {
    ($name:ident, $feature:tt) => {
        pub(super) fn $name() -> bool {
            #[cfg(feature = "std")]
            {
                std::arch::is_aarch64_feature_detected!($feature)
            }
            #[cfg(not(feature = "std"))]
            {
                cfg!(target_feature = $feature)
            }
        }
    };
}

has!(fp16, "fp16");
has!(dotprod, "dotprod");
has!(i8mm, "i8mm");
