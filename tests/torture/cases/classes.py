"""The 119 classes of bad input: what public corpora, defect lists and advisories hold.

Classes 1 to 107, 109 and 113 to 119 are files, see `catalogue`; 108 and 110 to 112 are situations
of a store.
"""

_FILES = """
1 zero bytes
2 preamble alone
3 no preamble
4 no file meta
5 no transfer syntax
6 unknown transfer syntax
7 explicit labelled implicit
8 big endian
9 deflated
10 deflated bomb
11 cut inside the dataset
12 length beyond the file
13 wrong VR
14 deep sequences, long headers
15 unknown VR of undefined length
16 odd lengths, order, duplicates
17 group length
18 character sets
19 preamble of another format
20 trailing junk
21 two files in one member
22 content against name
23 compressed file
24 DICOM as text
25 structured report
26 document
27 presentation state
28 key objects
29 radiotherapy plan, structures
30 radiotherapy dose
31 segmentation
32 parametric map
33 waveform
34 media directory
35 real world values
36 raw data
37 video
38 captured sheets and forms
39 slices
40 rows and columns
41 length of the pixels
42 bits allocated
43 bits stored
44 high bit
45 data above the stored bits
46 overlay in the pixels
47 sign
48 MONOCHROME1
49 palette
50 colour
51 frames
52 size of a compressed frame
53 fragments
54 another codec than declared
55 every codec
56 codecs that are rare
57 JPEG 2000 tiles
58 RLE
59 float pixels
60 senseless window
61 window of no numbers
62 VOI LUT
63 modality LUT, slope
64 VOI function
65 constant picture
66 presentation LUT
67 padding
68 window of another depth
69 aspect ratio
70 orientation, marker
71 16-bit PNG
72 kinds of PNG
73 alpha
74 corrupt PNG
75 animated PNG
76 PNG bomb
77 bomb in a PNG's text or profile
78 CMYK
79 EXIF orientation
80 JPEG processes
81 cut picture
82 other picture formats
83 markup
84 fuzzed picture
85 empty archive
86 no bytes
87 cut tar
88 damaged tar header
89 tar without its end
90 appended archives
91 damaged gzip
92 compression against name
93 extended tar headers
94 links, devices, folders
95 hostile names
96 names that are no UTF-8
97 duplicate names
98 zip64, lying sizes
99 overlapping entries
100 encrypted
101 unknown method
102 several disks
103 zip bomb
104 archives in archives
105 no picture, very many members
106 very large member
107 clutter
109 one picture twice
113 ends of a zip that are not its own
114 zip over 4 GiB without zip64
115 stale blocks and metadata of a tar
116 part of a split archive, archive of another kind
117 pad bytes and missing end markers
118 spacing, shutter
119 film scanners' maps
"""
_SITUATIONS = """
108 archive replaced while it is read
110 odd keys
111 access denied
112 wrong checksum
"""


def _numbered(text: str) -> dict[int, str]:
    pairs = (line.split(" ", 1) for line in text.strip().splitlines())
    return {int(number): words for number, words in pairs}


FILES = _numbered(_FILES)
"""Classes that a file shows."""
SITUATIONS = _numbered(_SITUATIONS)
"""Classes that a store shows; `tests/torture/test_torture_store.py` has one test for each."""
