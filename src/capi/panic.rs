//! What a firmware has instead of an unwinder.

unsafe extern "C" {
    /// The firmware's: must not return. It is told nothing, so that no formatting is linked.
    safe fn armlet_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    armlet_panic()
}
