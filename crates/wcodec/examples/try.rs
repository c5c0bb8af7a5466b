use wcodec::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let level = match a.get(2).map(String::as_str) { Some("fast") => Level::Fast, Some("max") => Level::Max, _ => Level::Default };
    let rows = a.get(3).map_or(64, |s| s.parse().unwrap());
    let out = format!("/tmp/an/{}.wcodec", std::path::Path::new(&a[1]).file_name().unwrap().to_str().unwrap());
    let t = std::time::Instant::now();
    let r = compress(&a[1], &out, &EncodeOptions { overwrite: true, level, superblock_rows: rows, ..Default::default() }, &()).unwrap();
    let enc = t.elapsed().as_secs_f64();
    println!("{} ratio {:.5} bytes {} enc {:.2}s", a[1], r.ratio(), r.archive_bytes, enc);
    let mut by = std::collections::BTreeMap::new();
    for t in &r.tensors { let e = by.entry((t.dtype.to_string(), t.mode)).or_insert((0, 0, 0)); e.0 += 1; e.1 += t.decoded_bytes; e.2 += t.stored_bytes; }
    for (k, v) in by { println!("  {k:?} {v:?} {:.5}", v.2 as f64 / v.1 as f64); }
    if std::env::var("V").is_ok() { for t in &r.tensors { if t.decoded_bytes > 100000 { println!("   {} {:?} {} {:.5}", t.name, t.shape, t.mode, t.stored_bytes as f64 / t.decoded_bytes as f64); } } }
    let t = std::time::Instant::now();
    let ar = Archive::open(&out).unwrap();
    decompress(&ar, format!("{out}.back"), true, &()).unwrap();
    println!("  dec {:.2}s", t.elapsed().as_secs_f64());
    assert!(std::fs::read(&a[1]).unwrap() == std::fs::read(format!("{out}.back")).unwrap());
}
