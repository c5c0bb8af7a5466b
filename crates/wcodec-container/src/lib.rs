//! The .wcodec file: writer, memory-mapped reader, directory, checksums
