//! The `cu*` symbols themselves. `table.rs` lists them, the macro here gives each its body, `types.rs` the C types.
//!
//! A call costs one atomic load more than a direct one: the library and each address are resolved once.
#![expect(unsafe_code, reason = "opens the driver library and calls through addresses found in it")]

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use libloading::Library;

use crate::codes;

mod table;
mod types;

pub(crate) use table::SYMBOLS;

/// Where the loader looks, in this order. The third is where WSL keeps its driver, often outside the search path.
#[cfg(not(windows))]
const LIBRARIES: &[&str] = &["libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1"];
#[cfg(windows)]
const LIBRARIES: &[&str] = &["nvcuda.dll"];

/// The libraries tried, with reasons, when there is no driver.
pub(crate) fn missing() -> Option<&'static [String]> {
    library().as_ref().err().map(Vec::as_slice)
}

/// The driver's version as it reports it (13000 for CUDA 13.0), or the result code.
pub(crate) fn driver_version() -> Result<c_int, c_int> {
    let mut version = 0;
    // SAFETY: the pointer is valid for one int, which is all that the function writes.
    match unsafe { table::cuDriverGetVersion(&mut version) } {
        codes::SUCCESS => Ok(version),
        code => Err(code),
    }
}

/// An address in the driver, before it is given its signature.
type Address = unsafe extern "C" fn();

/// One function's address, resolved on first use. `None` when the driver lacks it.
type Slot = OnceLock<Option<Address>>;

/// The address of `name`, or the result code that the caller gets instead.
fn resolve(slot: &Slot, name: &CStr) -> Result<Address, c_int> {
    let library = library().as_ref().map_err(|_| codes::NO_DEVICE)?;
    let address = slot.get_or_init(|| {
        // SAFETY: the symbol is a C function of the driver; it is called only after a cast to its signature.
        unsafe { library.get::<Address>(name) }.ok().map(|symbol| *symbol)
    });
    address.ok_or(codes::NOT_FOUND)
}

/// Opened on first use and never closed: addresses in it stay valid for the life of the process.
fn library() -> &'static Result<Library, Vec<String>> {
    static LIBRARY: OnceLock<Result<Library, Vec<String>>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut tried = Vec::new();
        for name in LIBRARIES {
            // SAFETY: the driver's initialisers have no preconditions; other programs load it in the same way.
            match unsafe { Library::new(*name) } {
                Ok(library) => return Ok(library),
                Err(error) => {
                    // libloading keeps the loader's own words in the source.
                    let reason = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
                    tried.push(if reason.contains(name) { reason } else { format!("{name}: {reason}") });
                }
            }
        }
        Err(tried)
    })
}

/// Defines every listed function as a C symbol that forwards to the driver, and their names as `SYMBOLS`.
macro_rules! driver_functions {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(super) unsafe extern "C" fn $name($($arg: $ty),*) -> c_int {
                static SLOT: super::Slot = super::Slot::new();
                type Function = unsafe extern "C" fn($($ty),*) -> c_int;
                const NAME: &std::ffi::CStr = super::c_name(concat!(stringify!($name), "\0"));
                match super::resolve(&SLOT, NAME) {
                    Ok(address) => {
                        // SAFETY: the driver exports this name with this signature (table.rs).
                        let function = unsafe { std::mem::transmute::<super::Address, Function>(address) };
                        // SAFETY: the caller keeps the driver's contract; the arguments pass through unchanged.
                        crate::codes::to_known(unsafe { function($($arg),*) })
                    }
                    Err(code) => code,
                }
            }
        )*

        pub(crate) const SYMBOLS: &[&str] = &[$(stringify!($name),)* "cuGetErrorName", "cuGetErrorString"];

        // Shared libraries that contain this crate must not export a second set of driver symbols.
        #[cfg(target_os = "linux")]
        std::arch::global_asm!($(concat!(".hidden ", stringify!($name)),)* ".hidden cuGetErrorName", ".hidden cuGetErrorString");
    };
}
use driver_functions;

/// The C string in `name`, which ends in its only zero byte.
const fn c_name(name: &str) -> &CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a driver function's name ends in its only zero byte"),
    }
}

/// `cuGetErrorString` and `cuGetErrorName`: the driver's answer where it has one, ours otherwise. Never fails on a valid
/// pointer, because cust panics when it does.
mod strings {
    use super::*;

    type Function = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
        static SLOT: Slot = Slot::new();
        // SAFETY: the caller passes null or a pointer that can be written.
        unsafe { describe(&SLOT, c"cuGetErrorString", error, text, codes::text_of) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn cuGetErrorName(error: c_int, name: *mut *const c_char) -> c_int {
        static SLOT: Slot = Slot::new();
        // SAFETY: the caller passes null or a pointer that can be written.
        unsafe { describe(&SLOT, c"cuGetErrorName", error, name, codes::name_of) }
    }

    /// # Safety
    /// `out` is null or valid for a write.
    unsafe fn describe(
        slot: &Slot,
        function: &CStr,
        error: c_int,
        out: *mut *const c_char,
        ours: fn(i32) -> &'static CStr,
    ) -> c_int {
        if out.is_null() {
            return codes::INVALID_VALUE;
        }
        let mut text = std::ptr::null();
        if let Ok(address) = resolve(slot, function) {
            // SAFETY: both functions have this signature in cuda.h.
            let function = unsafe { std::mem::transmute::<Address, Function>(address) };
            // SAFETY: `text` can be written; the driver stores a static string or null.
            if unsafe { function(error, &mut text) } != codes::SUCCESS {
                text = std::ptr::null();
            }
        }
        if text.is_null() {
            text = ours(error).as_ptr();
        }
        // SAFETY: not null, and the caller vouches for the rest.
        unsafe { out.write(text) };
        codes::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_once() {
        let mut names = SYMBOLS.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SYMBOLS.len());
        assert!(names.iter().all(|name| name.starts_with("cu")));
    }

    #[test]
    fn a_function_that_no_driver_has_is_reported_as_such() {
        let expected = if missing().is_some() { codes::NO_DEVICE } else { codes::NOT_FOUND };
        assert_eq!(resolve(&Slot::new(), c"cuHasNoSuchFunction").err(), Some(expected));
    }
}
