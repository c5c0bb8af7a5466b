#![allow(missing_docs, missing_debug_implementations)]
use super::context::Handle;
use super::*;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Mutex;

#[derive(Clone, Debug)]
pub struct Variant { pub name: String, pub dir: String, pub threads: u32, pub more: u32, pub few: u32, pub warp_bytes: u32, pub counter: bool }
pub static CURRENT: Mutex<Option<Variant>> = Mutex::new(None);

/// name,dir,warps,more warps,few,warp bytes,counter
pub fn from_env() -> Vec<Option<Variant>> {
    let mut all = vec![None];
    for line in std::env::var("WCODEC_VARIANTS").unwrap_or_default().split_whitespace() {
        let p: Vec<&str> = line.split(',').collect();
        let n = |i: usize| p[i].parse::<u32>().unwrap();
        all.push(Some(Variant { name: p[0].into(), dir: p[1].into(), threads: 32 * n(2), more: 32 * n(3), few: n(4), warp_bytes: n(5), counter: n(6) != 0 }));
    }
    all
}

pub(super) fn function(context: &CudaContext, path: &str, name: &'static CStr) -> Result<Function, CudaError> {
    static LOADED: Mutex<Option<HashMap<(String, &'static CStr), usize>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap();
    let map = loaded.get_or_insert_with(HashMap::new);
    if let Some(&f) = map.get(&(path.to_owned(), name)) { return Ok(Function(Handle(f as *mut _))); }
    let _current = context.enter()?;
    let Ok(image) = std::fs::read(path) else { return Err(CudaError::Call { call: "no such variant", code: 0 }) };
    let mut module = std::ptr::null_mut();
    check("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) })?;
    let mut raw = std::ptr::null_mut();
    check("cuModuleGetFunction", unsafe { sys::cuModuleGetFunction(&mut raw, module, name.as_ptr()) })?;
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    drop(_current);
    let bytes = context.shared_memory()?;
    let _current = context.enter()?;
    check("attr", unsafe { sys::cuFuncSetAttribute(raw, attribute, bytes as i32) })?;
    map.insert((path.to_owned(), name), raw as usize);
    Ok(Function(Handle(raw)))
}
