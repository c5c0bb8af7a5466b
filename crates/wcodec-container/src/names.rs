//! Tensors by name.

use std::collections::HashMap;

use crate::{Directory, Segment};

/// Finds tensors by name, and by file and name.
#[derive(Debug)]
pub(crate) struct NameIndex {
    /// The first tensor of each name.
    first: HashMap<String, u32>,
    /// Files by path.
    files: HashMap<String, u32>,
    /// Tensors by file and by the first tensor of their name.
    in_file: HashMap<(u32, u32), u32>,
}

impl NameIndex {
    pub(crate) fn new(directory: &Directory) -> Self {
        let same_name = directory.first_of_same_name();
        let numbered = (0u32..).zip(&directory.tensors);
        let first = numbered.filter(|&(index, _)| same_name[index as usize] == index);
        let first = first.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let files = (0u32..).zip(&directory.files).map(|(index, file)| (file.path.clone(), index)).collect();
        let mut in_file = HashMap::new();
        for (number, file) in (0u32..).zip(&directory.files) {
            for segment in &file.segments {
                if let Segment::Tensor { index } = *segment
                    && let Some(&name) = same_name.get(index as usize)
                {
                    in_file.insert((number, name), index);
                }
            }
        }
        Self { first, files, in_file }
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.first.get(name).map(|&index| index as usize)
    }

    pub(crate) fn find_in(&self, path: &str, name: &str) -> Option<usize> {
        let key = (*self.files.get(path)?, *self.first.get(name)?);
        self.in_file.get(&key).map(|&index| index as usize)
    }
}
