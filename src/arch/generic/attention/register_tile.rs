//! Which register tile computes the products of so many heads.

/// Calls the function for 1 to 4 heads, `G`, with as many columns or positions, `N`, as registers hold the sums of beside
/// their operands: `G => [N with 32-byte registers or smaller, N where `WIDE`]`. A KV format that computes one head at a
/// time has an instance for one alone.
macro_rules! by_heads {
    (
        $heads:expr, $function:ident::<$isa:ident, $format:ident>$arguments:tt,
        $($g:literal => [$narrow:literal, $wide:literal]),*
    ) => {
        match $heads {
            $(
                $g if ($g == 1 || $format::HEADS > 1) && <$isa as Isa>::F32x16::WIDE => {
                    $function::<$isa, $format, $g, $wide>$arguments;
                }
                $g if $g == 1 || $format::HEADS > 1 => $function::<$isa, $format, $g, $narrow>$arguments,
            )*
            _ => {}
        }
    };
}
pub(super) use by_heads;
