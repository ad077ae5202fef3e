//! The panic handler of a static library without `std`.

#![allow(unsafe_code)]

unsafe extern "C" {
    /// Defined by the firmware; must not return. It gets no message, so that no formatting code is linked.
    safe fn armlet_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    armlet_panic()
}
