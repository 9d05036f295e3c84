"""Data files: found, unpacked, told by their content, and read as rows, as streams.

files = DataFiles.of(Path("preferences"), split="train")
for number, row in read_files(files, {}, dropped): ...
"""

from quatrain.data.files.opening import FILE_FORMATS, detect_format
from quatrain.data.files.sets import DataFile, DataFiles, choose_split, find_files, read_files

__all__ = ["FILE_FORMATS", "DataFile", "DataFiles", "choose_split", "detect_format", "find_files", "read_files"]
