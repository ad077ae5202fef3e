#!/usr/bin/env python3
"""Make the golden tokenizer data from llama.cpp.

    pip install llama-cpp-python==0.3.36 gguf sentencepiece
    python3 make_golden.py MODEL OUTDIR [--train TEXT] [--real NAME=FILE ...]

MODEL is SmolLM2-135M-Instruct as GGUF (any quantization; only the metadata is
read).  OUTDIR receives one JSON-lines file per vocabulary setting.

OUTDIR/spm.gguf and OUTDIR/bpe.gguf, two small vocabularies, are used when they
are there; with --train they are trained afresh on TEXT (a plain text file; the
kept ones were trained on the text of the GNU GPL, version 3) and texts below.

--real adds OUTDIR/real/NAME.json for a further GGUF file.

Every line of an output file is one object:
    text        the input; never ill-formed UTF-8, may contain NUL
    ids         token ids for (add_special, parse_special) = (0,0), (0,1),
                (1,0), (1,1); null stands for "the same as the first"
    pieces_hex  llama_token_to_piece(special=true) of the first ids, joined
    detok_hex   llama_detokenize(remove_special=false, unparse_special=true)
                of the first ids; null when equal to pieces_hex
"""

import argparse
import ctypes
import json
import random
import sys
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp

# ---------------------------------------------------------------- the corpus

PROSE = [
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time, in a land far away, there lived a king who had no children.",
    "It was the best of times, it was the worst of times; it was the age of wisdom...",
    "“Curly quotes,” she said — ‘and dashes’ – with an ellipsis…",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë.",
    "L'été dernier, j'ai vu qu'il n'était plus là : « aujourd'hui » !",
    "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. STRASSE/Straße/ẞ",
    "El veloz murciélago hindú comía feliz cardillo y kiwi. ¿Qué? ¡Añoñería!",
    "Luís argüia à Júlia que «brações, fé, chá, óxido, pôr, zângão» eram palavras.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Zażółć gęślą jaźń. Pchnąć w tę łódź jeża lub ośm skrzyń fig.",
    "Árvíztűrő tükörfúrógép",
    "Þú dazt á hnéð í vök og yfir blóm sexý pæju. Æðislegt, Ðórður!",
    "Høj bly gom vandt fræk sexquiz på wc. Blåbærsyltetøy.",
    "Pijamalı hasta yağız şoföre çabucak güvendi. İIıi",
    "Do bạch kim rất quý nên sẽ dùng để lắp vô xương. Tiếng Việt có dấu.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὦ ἄνδρες Ἀθηναῖοι, ᾧ ᾳ ΐ",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!",
    "Љубазни фењерџија чађавог лица хоће да ми покаже штос.",
    "صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت — يَحظى الضَجيعُ بِها نَجلاءَ مِعطارِ",
    "مرحبا بالعالم، كيف حالك؟ الساعة ٣:٤٥",
    "دلفین ۱۲۳۴ می‌خواهم؛ نیم‌فاصله",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם עֲלֵיכֶם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। नमस्ते १२३",
    "আমি বাংলায় গান গাই। ৳৫০০",
    "ਸਤ ਸ੍ਰੀ ਅਕਾਲ। ਪੰਜਾਬੀ",
    "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம்",
    "తెలుగు భాష ఒక ద్రావిడ భాష. ಕನ್ನಡ മലയാളം සිංහල",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
    "ສະບາຍດີ ភាសាខ្មែរ မြန်မာဘာသာ བོད་སྐད་ ᠮᠣᠩᠭᠣᠯ",
    "我能吞下玻璃而不伤身体。你好，世界！「引号」『书』（括号）：；？",
    "視野無限廣，窗外有藍天。繁體中文、臺灣。",
    "いろはにほへと ちりぬるを わかよたれそ つねならむ",
    "私はガラスを食べられます。それは私を傷つけません。ｶﾀｶﾅ ﾊﾝｶｸ ＡＢＣ１２３",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 한글",
    "ሰማይ አይታረስ ንጉሥ አይከሰስ። አማርኛ ፩፪፫፬፲",
    "მინას ვჭამ და არა მტკივა. ქართული ენა ᲥᲐᲠᲗᲣᲚᲘ",
    "Կրնամ ապակի ուտել և ինծի անհանգիստ չըներ։",
    "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ ᛁᚳ ᛗᚨᚷ",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ꮳꮃꭹ ⵜⴰⵎⴰⵣⵉⵖⵜ ᐃᓄᒃᑎᑐᑦ ߒߞߏ",
    "𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𝕳𝖊𝖑𝖑𝖔 𝓌𝑜𝓇𝓁𝒹 𝟙𝟚𝟛 𠀀𠮷𪛖 𒀀𒁀 𓀀𓂀",
]

CODE = [
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n",
    "class A(B):\n\tdef __init__(self, *args, **kw):\n\t\tsuper().__init__(*args, **kw)  # ok\n\n\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n    let v: Vec<u8> = vec![0x1F; 42];\n    println!(\"{:?}\", v);\n    Ok(())\n}\n",
    "impl<'a, T: 'static + Send> Iterator for It<'a, T> { type Item = &'a T; }",
    "#include <stdio.h>\r\nint main(void)\r\n{\r\n\tprintf(\"%d\\n\", 1<<3);\r\n\treturn 0;\r\n}\r\n",
    "template <typename T> auto f(T&& t) -> decltype(auto) { return std::forward<T>(t); }",
    "const f = async ({a, b = 2, ...rest}) => `${a}+${b} = ${await g(a ?? b)}`; // done",
    "SELECT t.id, COUNT(*) AS n FROM t LEFT JOIN u ON t.id=u.t_id WHERE u.x IS NOT NULL GROUP BY 1;",
    "for f in *.txt; do echo \"$f: $(wc -l < \"$f\")\"; done | sort -k2,2n >> out.log 2>&1",
    "{\"name\": \"x\", \"list\": [1, 2.5, -3e10, null, true], \"nested\": {\"k\\n\": \"\\u00e9\"}}",
    "{\n  \"a\": [],\n  \"b\": {}\n}",
    "<html lang=\"en\"><body onload='f()'>&nbsp;&lt;p&gt;<!-- c --></body></html>",
    "key: value\nlist:\n  - a\n  - b: {c: d}\n---\n...\n",
    "[section]\nname = 'x' ; comment\npath=C:\\Users\\me\\file.txt\n",
    "@@ -1,4 +1,5 @@\n-old line\n+new line\n context\n\\ No newline at end of file\n",
    "main = do { xs <- getLine; mapM_ (print . (+1)) $ map read (words xs) } -- λ",
    "(defun f (x) (if (<= x 1) 1 (* x (f (1- x)))))",
    "\\begin{equation}\n  e^{i\\pi} + 1 = 0 \\quad \\forall x \\in \\mathbb{R}\n\\end{equation}",
    "ldr x0, [sp, #16]\t; load\nadd\tw1, w1, #0x10\nb.ne\t.L2\n",
    "a==b!=c<=d>=e&&f||!g?h:i|=j&=k^=l<<=1>>=2**3//4%5",
    "if(x){y();}else{z[0][1]->w=~v;}",
    "snake_case camelCase PascalCase SCREAMING_SNAKE kebab-case __dunder__ _x x_ 3d",
]

MARKUP = [
    "# Title\n\n## Sub\n\n* item **bold** _it_ `code`\n  1. one\n  2. two\n\n> quote\n",
    "```rust\nfn f() {}\n```\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n",
    "- [x] done\n- [ ] todo\n\n[link](https://example.com/a?b=c#d \"title\") ![img](i.png)",
    "https://www.example.com:8080/path/to/page.html?query=a%20b&x[]=1#frag",
    "ftp://user:pass@host/ mailto:a.b+c@d-e.co.uk 192.168.0.1 ::1 fe80::1%eth0",
    "See www.test.org/~user/index.php, or http://xn--mnchen-3ya.de/ü/日本?q=é.",
    "2024-02-29T23:59:59.999+01:00 12/31/1999 3:05pm",
    "$1,234.56 €99,- £5.00 ¥1000 50% -40°C 1e-9 0xDEADbeef 0b1010 1_000_000",
    "~~strike~~ ==mark== H~2~O x^2^ :smile: #hashtag @mention",
    "....... ------- ======= *******  #######  ///// \\\\\\\\ ______ !!!??? ,,,;;;:::",
    "¡¿§¶†‡•·…‰′″‹›«»„‚“”‘’–—―‖¦",
    "←↑→↓↔ ∀∂∈ℝ∧∪≡∞ ∫∑∏√ ⌈⌉⌊⌋ ─│┌┐ █▓▒░ ◆○● ☐☑ ℃№™©®",
    "¼½¾⅓⅛ ²³¹⁰ⁿ₀₁₂ ①②⑩ Ⅷⅻ ㊀㊿ ㎏ ﬁﬂ Ǆǅǆ ªº",
]

EMOJI = [
    "😀", "😀😃😄", "Hello 👋 world 🌍!", "👍🏽", "👍🏻👍🏿 ok", "👨‍👩‍👧‍👦", "👩🏾‍🚀 in space",
    "🏳️‍🌈🏴‍☠️", "🇩🇪🇫🇷🇯🇵", "🇩🇪🇫", "❤️ ❤ ♥︎", "1️⃣2️⃣#️⃣", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "🤷🏼‍♀️¯\\_(ツ)_/¯", "(╯°□°）╯︵ ┻━┻", "a😀b 😀 c  😀", "🫠🫨🪿", "\u200d\u200d", "😀\n😀\r\n😀", "😀's 😀'LL 😀123",
]

MARKS = [
    unicodedata.normalize(form, text)
    for text in ("éàüñç", "Ångström", "Việt Nam", "가나다 각", "ḍ̇ q̣̇", "résumé's naïveté", "がぎぐ パピ", "й ё Й")
    for form in ("NFC", "NFD")
] + [
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "\u0301", "\u0301a", "a\u0301\u0302\u0303b", " \u0301x", "1\u0301 2\u20e3", "x\u0338=\u0338",
    "क्\u200dष क्\u200cष", "ﷺ ﻻ ﷽", "\u05d1\u05bc\u05b0", "a\ufe0fb\ufe0e",
]

DIGITS = ["0", "7", "42", "123", "1234", "12345", "123456", "1234567", "12345678", "123456789",
          "1234567890", "0" * 17, "9" * 32, "3.14159265358979", "1 22 333 4444 55555",
          " 1  22   333", "a1b22c333d4444", "1,000,000.00", "1a", "a1", "1 ", " 1", "\n1\n22\n", "-1 +2 #3",
          "٠١٢٣٤٥٦٧٨٩", "۱۲۳۴۵", "०१२३४५", "১২৩", "๐๑๒๓", "０１２３４５６７", "一二三四五六七八九十", "〇〇七",
          "½⅔¼", "1½ 2⅔", "²³¹", "x²+y³", "Ⅷ ⅷ", "𝟘𝟙𝟚𝟛𝟜", "1٢३4", "12٣٤56", "⑴⒈㈠"]

CONTRACTIONS = [
    "I'm you're he's she'll we've they'd don't can't",
    "I'M YOU'RE HE'S SHE'LL WE'VE THEY'D DON'T CAN'T",
    "I'm You'Re he'S she'lL we'vE they'D don'T",
    "'s 't 're 've 'm 'll 'd", "'S 'T 'RE 'VE 'M 'LL 'D", "'s't're've'm'll'd", "'S'T'RE'VE'M'LL'D",
    "'rE 'Re 'vE 'Ve 'lL 'Ll", "'so 'to 'red 'very 'me 'llama 'do", "''s '''t", "x'y'z", "x 's y", "x' s",
    "I’m you’re he’s she’ll we’ve", "'ſ 'K it'ſ", "rock'n'roll o'clock 'tis ma'am y'all'd've", "'", "' '", "'\n's",
    "1's 2'S 3'll", "_'s -'t !'re", "\n's\t'll", "'l 'v 'r 'L 'V 'R", "l'l'll", "John's' 'dogs'",
    "I ' m , here ! What ? Yes . it 's I 'm we 're they 've ' x '",
]

SPACES = [" " * n for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100)] + [
    " a", "  a", "   a", "    a", "     a", "a ", "a  ", "a   ", "a    ", "a b", "a  b", "a   b", "a    b", "a     b",
    " a  b   c    d     e      f", "a \n", "a  \n", "a   \n   b", "a\n ", "a\n  ", "a \n \n b", " \n", "  \n\n  ",
    "\n", "\n\n", "\n\n\n", "\n\n\n\n", "\n" * 7, "\n" * 16, "\n a", "\n  a", "\n\na", "\n\n a\n\n\nb", "a\n\n\n",
    "\r", "\r\n", "\r\n\r\n", "\r\r", "\n\r", "\n\r\n\r", "a\r\nb\rc\nd", "a\r\n\r\n b\r\r\n", " \r\n  x\r", "!\r\n?\n\n.\r",
    "\t", "\t\t", "\t\t\t\t", " \t", "\t ", " \t \t ", "\ta", "a\t\tb", "\t\n", "\n\t\n", "\t\r\n\t", "a\t \tb", "  \t  c",
    "!  !   ! \n !", "1  2   3 \n 4", "x  \n\n\n   y  \n", "\x0b\x0c", "a\x0bb\x0cc", " \x0b \x0c \n",
    "\u00a0", " \u00a0 ", "a\u00a0b", "\u00a0\u00a0a", "a \u00a0b", "\u3000", "\u3000あ\u3000\u3000い", "a\u2003b\u2009c\u202fd\u205fe",
    "\u2028", "a\u2028b\u2029c", "\u0085", "a\u0085b \u0085", "\u1680x\u180ey", "\u200b", "a\u200bb", "\u200b \u200b", "\u2060a\u00adb",
    "\ufeff", "\ufeffHello", "a\ufeffb", "\ufffd", "a\ufffdb\ufffd\ufffd", "\u00a0\n", "\u3000\n\u3000", "\u00a0's", "\u2003123",
    "▁", "▁▁", "▁a", "a▁b", " ▁ ", "▁ ▁", "▁Hello▁world", "Ġ", "ĠĠ", "Ġa", "aĠb", "Ċ", "ĊĊĠ", "ĉ", "č", "Ģ", "Ġ Ġ", "Ā",
    "Ł Ń ł ŀ", "±²³´µ",
]

CONTROLS = [
    "\x00", "\x00\x00", "a\x00b", "\x00a", "a\x00", " \x00 ", "x\x00\n\x00y", "\x00<|im_start|>\x00", "\x00's", "1\x002",
    "\x01\x02\x03\x04\x05\x06\x07\x08", "\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17", "\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f",
    "\x1b[31mred\x1b[0m", "\x7f", "a\x7fb", "bell\x07 back\x08", "\x80\x81\x8d\x9f", "\x1c\x1d\x1e\x1f x", "a\x1cb\x1fc",
    "\x04", "\x06", "\x13", "\x14", "\x16", "\x1d", "a\x04b \x06\x04 c", "\u202eabc\u202c", "\u2066x\u2069", "\ufff9a\ufffab\ufffb",
    "\uffff", "\ufffe", "\U0010ffff", "\U000f0000\ue000", "\U00040000", "a\U00040000b\U00050000", "\U00080000 \U000c0000", "\U000e0100",
    "".join(map(chr, range(0x20))), "".join(map(chr, range(0x20, 0x80))), "".join(map(chr, range(0x80, 0x100))),
]

RUNS = ["a" * n for n in (2, 3, 5, 8, 13, 64, 300)] + [
    "A" * 50, "z" * 77, "é" * 20, "あ" * 33, "ж" * 40, "😀" * 12, "!" * 40, "-" * 80, "=" * 79, "." * 33, "ab" * 60, "abc" * 50,
    "xyzzy" * 20, "a " * 40, " a" * 40, "\n " * 20, "the " * 30, "haha" * 25, "AaAaAa" * 10, "0a" * 20, "\u0301" * 9, "'" * 11, "<" * 20, "|>" * 12,
    "qwhfjzkxvbnmpltrgdscyquweioaxzlkjhgfdsmnbvcxpoiuytrewqlaksjdhfgmznxbcv",
    "QZXJKVBPYGFWMUCLDRHSNIOATEqzxjkvbpygfwmucldrhsnioate",
    "XkQ7vZ2pLw9RtY4mNb8Jc3Hd6Gs1Fa5Ke0Uo",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis floccinaucinihilipilification",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQ=",
    "d41d8cd98f00b204e9800998ecf8427e", "550e8400-e29b-41d4-a716-446655440000",
]

SPECIALS = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<0x0A>", "<0x00><0xFF>", "<0x0a>",
    "<|im_start|><|im_start|>", "<|im_start|><|im_end|><|endoftext|>", " <|im_start|>", "<|im_start|> ", "  <|im_start|>  ", "\n<|im_end|>\n",
    "a<|im_start|>b", "a <|im_start|> b", "<|im_start|>a<|im_end|>b", "<|im_start", "|im_start|>", "<|im_start|", "<<|im_start|>>", "<|<|im_start|>|>",
    "<|im_<|im_start|>start|>", "<|im_start|im_end|>", "<|IM_START|>", "< |im_start| >", "<|im_start|>\n\n\n<|im_end|>", "<|im_end|>'s <|im_end|>123",
    "<s>a</s>", "<s><s></s>", "<s> </s>", " <s> a </s> ", "a<s>b", "<s", "s>", "<s>>", "<<s>", "</s", "<unk>a<unk>", " <unk> ", "x<unk>y</s>",
    "<repo_name>x<filename>y.py<gh_stars>100<file_sep>", "<reponame><issue_start><issue_comment><issue_closed>", "<jupyter_code>1<jupyter_output><empty_output>",
    "<|begin_of_text|>Hi<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\n", "<start_of_turn>user\nhi<end_of_turn>\n", "[INST] hi [/INST]", "<|vision_start|><|fim_prefix|>",
    "<tool>", "</tool>", "<tool></tool>", "a<tool>b", "a <tool> b", " <tool>", "  <tool>", "   <tool>", "<tool><tool></tool></tool>", "<too", "<tool", "tool>", "<tool>  <tool>\n\n<tool>",
    "a\n\nb", "a\n\n\nb", "a\n\n\n\nb", "  \n\n  ", "<s>  a", "<s>\n\n", "a  b    c      d", "x\n\n  y", "a<unused0><unused1>b", "<mask>[multimodal]", "<h1>t</h1><br><table>",
    "<|im_start|>\x00<|im_end|>", "▁<s>▁", "Ġ<|im_end|>Ġ",
]

CHATS = [
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat's 12+30?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nHi!  <|im_end|>\n<|im_start|>assistant\nHello 👋<|im_end|>\n<|im_start|>user\n\n<|im_end|>\n<|im_start|>assistant\n",
    "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a colour. [/INST] Blue </s><s>[INST] Another? [/INST]",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<bos><start_of_turn>user\nWrite a haiku.<end_of_turn>\n<start_of_turn>model\n",
]

ENGLISH = [
    "", "a", "A", "Hello", " Hello", "Hello world", " Hello world", "Hello, world!", "Hello, y'all! How are you 😁 ?", "HELLO WORLD", "hElLo WoRlD",
    "iPhone15ProMax", "McDonald's", "e.g. i.e. etc. U.S.A. Ph.D.", "re-entry co-op x-ray", "and/or", "\"quoted\"", "(parens) [brackets] {braces} <angles>",
    "wait...what?!", "one,two;three:four", "word\"word", "Mr. O'Neill's can't-miss", "C++ C# F# .NET node.js", "a.b.c", ".5", "x=1", "$x", "@", "#", "\\", "/", "\\n", "`", "^~",
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\nThe slings and arrows of outrageous fortune,\n",
]

# Words that bpe.gguf holds as tokens without merges: see ignore_merges.
UNREACHABLE = [" unreachable", "qqzz", "?!?!", "908"]  # one of every kind of word
WHOLE_WORDS = ["an unreachable token", "unreachable", "qqzz", " qqzz", "qqzz1 908", "908", "9081", "1908", "what?!?!", "?!?!", "?!?!\n", "an unreachables qqzzs"]

CORPUS = ENGLISH + PROSE + CODE + MARKUP + EMOJI + MARKS + DIGITS + CONTRACTIONS + SPACES + CONTROLS + RUNS + SPECIALS + CHATS + WHOLE_WORDS

# Code points for the random strings; surrogates are left out.
RANGES = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x5F4), (0x600, 0x6FF), (0x700, 0x8FF),
    (0x900, 0xDFF), (0xE00, 0xFFF), (0x1000, 0x17FF), (0x1800, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2100, 0x23FF), (0x2400, 0x2BFF), (0x2C00, 0x2FFF),
    (0x3000, 0x30FF), (0x3100, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFFFD),
    (0x10000, 0x10FFF), (0x11000, 0x12FFF), (0x16000, 0x1BFFF), (0x1D000, 0x1DFFF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FFFF), (0x20000, 0x32000), (0xE0000, 0x10FFFF),
]


class Random:
    """Only Random.random() is guaranteed to be the same in every Python."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def upto(self, low, high):
        return low + int(self.random() * (high - low + 1))

    def pick(self, items):
        return items[int(self.random() * len(items))]

    def code_point(self):
        return chr(self.upto(*self.pick(RANGES)))


def random_mixtures(count=150, seed=20240611):
    """Short fragments of everything above, glued together."""
    rng = Random(seed)
    atoms = ["'s", "'LL", "'re", "'", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<tool>", "</tool>", "<", "|>", "▁", "Ġ",
             "\r\n", "\r", "\n", "\n\n", "\t", "\x00", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u0301", "é", "e\u0301", "½", "٣", "😀", "👩🏾‍🚀", "!", "...", ", ", "\"", "://"]

    def fragment():
        kind = rng.upto(0, 11)
        if kind <= 1:
            return rng.pick(atoms)
        if kind == 2:
            return " " * rng.upto(1, 9)
        if kind == 3:
            return "".join(rng.pick("0123456789") for _ in range(rng.upto(1, 9)))
        if kind == 4:
            return "".join(rng.pick("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.upto(1, 8)))
        if kind == 5:
            return "".join(rng.pick("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.upto(1, 4)))
        if kind == 6:
            return "".join(rng.pick(" \n\r\t") for _ in range(rng.upto(1, 5)))
        if kind == 7:
            return rng.code_point()
        if kind == 8:
            low, high = rng.pick(RANGES)
            return "".join(chr(rng.upto(low, high)) for _ in range(rng.upto(2, 5)))
        text = rng.pick(PROSE + CODE + MARKUP + ENGLISH[1:])  # a slice of some text
        start = rng.upto(0, len(text) - 1)
        return text[start:start + rng.upto(1, 14)]

    return ["".join(fragment() for _ in range(rng.upto(2, 12))) for _ in range(count)]


def category_sweeps(count=40, seed=7):
    """Code points in contexts whose split depends on the character's class.

    After a letter or a digit "'s" is a contraction, after a symbol it is not;
    "123" joins a number; a blank is joined to whatever is not white space.
    """
    rng = Random(seed)
    return [" ".join(c + "'s" + c + "123" + c for c in (rng.code_point() for _ in range(8))) for _ in range(count)]


def corpus():
    texts = CORPUS + random_mixtures() + category_sweeps()
    for text in texts:
        text.encode("utf-8")  # a lone surrogate would raise
    return list(dict.fromkeys(texts))  # without repetitions, in order


# -------------------------------------------------------------- vocabularies

def copy_vocabulary(model, out, **changes):
    """Copy all metadata of a GGUF file, no tensor, with some values changed."""
    reader = gguf.GGUFReader(model)
    arch = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(out, arch, use_temp_file=False)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = changes.get(name.removeprefix("tokenizer.ggml."), field.contents())
        writer.add_key_value(name, value, kind, sub_type=element)
    write(writer)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


USER_DEFINED = ["<tool>", "</tool>", "<tool></tool>", " <tool>", "  ", "    ", "\n\n"]


def train_spm(text_file, out, size=2000):
    """Train a small BPE vocabulary with byte fallback and write it as GGUF."""
    import sentencepiece as spm

    text = "\n".join([Path(text_file).read_text(encoding="utf-8")] + (PROSE + CODE + MARKUP + ENGLISH) * 3)
    lines = text.replace("\t", " ").splitlines()  # neither tabs nor line ends in pieces: these take byte tokens
    with tempfile.TemporaryDirectory() as folder:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=f"{folder}/spm", model_type="bpe", vocab_size=size,
            byte_fallback=True, character_coverage=0.995, normalization_rule_name="identity", split_digits=True,
            remove_extra_whitespaces=False, add_dummy_prefix=True, allow_whitespace_only_pieces=True,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=1)
        model = spm.SentencePieceProcessor(model_file=f"{folder}/spm.model")

    kinds = gguf.TokenType
    tokens, scores, types = [], [], []
    for i in range(model.vocab_size()):
        tokens.append(model.id_to_piece(i))
        scores.append(model.get_score(i))
        types.append(kinds.UNKNOWN if model.is_unknown(i) else kinds.CONTROL if model.is_control(i)
                     else kinds.BYTE if model.is_byte(i) else kinds.NORMAL)
    for token in USER_DEFINED:
        assert token not in tokens
        tokens.append(token)
        scores.append(0.0)
        types.append(kinds.USER_DEFINED)

    writer = gguf.GGUFWriter(out, "llama", use_temp_file=False)
    add_hyper_parameters(writer, "spm", len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    write(writer)


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def train_bpe(text_file, out, merges=1500, longest=12):
    """Train a small byte-level BPE vocabulary and write it as GGUF.

    It is trained without splitting the text first, so that many tokens cross
    the boundaries a pre-tokenizer draws and a boundary missed shows in the ids.
    """
    letters = byte_alphabet()
    rng = Random(5)
    numbers = " ".join(str(rng.upto(0, 10 ** rng.upto(1, 6))) for _ in range(600))
    training = [text for text in CORPUS if text not in SPECIALS + WHOLE_WORDS]
    text = "\n".join([Path(text_file).read_text(encoding="utf-8"), numbers, *training])
    symbols = [letters[b] for b in text.encode("utf-8")]

    special = ["<|unk|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    user_defined = ["<tool>", " <tool>", "\n\n\n\n"]  # not byte-encoded, unlike the normal tokens
    tokens = special + [letters[b] for b in range(256)]
    rules = []
    while len(rules) < merges:
        counts = Counter(pair for pair in zip(symbols, symbols[1:]) if len(pair[0]) + len(pair[1]) <= longest)
        left, right = max(counts, key=lambda pair: (counts[pair], pair))
        merged, i = [], 0
        while i < len(symbols):
            if symbols[i] == left and symbols[i + 1:i + 2] == [right]:
                merged.append(left + right)
                i += 2
            else:
                merged.append(symbols[i])
                i += 1
        symbols = merged
        rules.append(f"{left} {right}")
        if left + right not in tokens:
            tokens.append(left + right)
    for word in UNREACHABLE:
        tokens.append("".join(letters[b] for b in word.encode("utf-8")))
    tokens += user_defined
    assert len(set(tokens)) == len(tokens), [token for token, count in Counter(tokens).items() if count > 1]

    kinds = gguf.TokenType
    types = [kinds.UNKNOWN] + [kinds.CONTROL] * (len(special) - 1)
    types += [kinds.NORMAL] * (len(tokens) - len(special) - len(user_defined)) + [kinds.USER_DEFINED] * len(user_defined)

    writer = gguf.GGUFWriter(out, "llama", use_temp_file=False)
    add_hyper_parameters(writer, "bpe", len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(rules)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    write(writer)


def add_hyper_parameters(writer, name, size):
    writer.add_name(name)
    writer.add_vocab_size(size)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)


# ----------------------------------------------------------------- llama.cpp

class Vocabulary:
    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def close(self):
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text, add_special, parse_special):
        data = text.encode("utf-8")  # passed with its length, so NUL is data
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, room, add_special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def pieces(self, ids):
        buffer = ctypes.create_string_buffer(1024)
        out = b""
        for token in ids:
            count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
            assert count >= 0
            out += buffer.raw[:count]
        return out

    def detokenize(self, ids, room):
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        buffer = ctypes.create_string_buffer(room + 8)
        count = llama_cpp.llama_detokenize(self.vocab, tokens, len(ids), buffer, len(buffer), False, True)
        assert count >= 0
        return buffer.raw[:count]


COMBINATIONS = [(False, False), (False, True), (True, False), (True, True)]


def make(name, path, texts, out):
    vocabulary = Vocabulary(path)
    with open(out, "w", encoding="ascii", newline="\n") as file:
        for text in texts:
            ids = [vocabulary.tokenize(text, *flags) for flags in COMBINATIONS]
            pieces = vocabulary.pieces(ids[0])
            detok = vocabulary.detokenize(ids[0], len(pieces))
            line = {
                "text": text,
                "ids": [ids[0]] + [None if other == ids[0] else other for other in ids[1:]],
                "pieces_hex": pieces.hex(),
                "detok_hex": None if detok == pieces else detok.hex(),
            }
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    vocabulary.close()
    print(f"{name}: {len(texts)} strings, {out.stat().st_size} bytes")


def quiet():
    @llama_cpp.llama_log_callback
    def log(level, text, _):
        if level >= 4:  # GGML_LOG_LEVEL_ERROR
            sys.stderr.write(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p())
    return log  # must stay alive


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", type=Path)
    args.add_argument("outdir", type=Path)
    args.add_argument("--train", metavar="TEXT", type=Path, help="train OUTDIR/spm.gguf and OUTDIR/bpe.gguf afresh")
    args.add_argument("--real", metavar="NAME=FILE", action="append", default=[])
    args = args.parse_args()

    log = quiet()
    texts = corpus()
    args.outdir.mkdir(parents=True, exist_ok=True)
    spm, bpe = args.outdir / "spm.gguf", args.outdir / "bpe.gguf"
    if args.train:
        train_spm(args.train, spm)
        train_bpe(args.train, bpe)
    elif not (spm.exists() and bpe.exists()):
        sys.exit(f"{spm} or {bpe} is missing: copy them there, or use --train")

    def run(name, path):
        out = args.outdir / f"{name}.json"
        out.parent.mkdir(exist_ok=True)
        make(name, path, texts, out)

    run("smollm", args.model)
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "vocab.gguf"
        for pre in ("gpt-2", "llama-bpe", "qwen2", "default"):
            copy_vocabulary(args.model, changed, pre=pre)
            run(pre, changed)
        for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2", "default"):
            copy_vocabulary(bpe, changed, pre=pre)
            run(f"bpe/{pre}", changed)
        run("spm", spm)
        copy_vocabulary(spm, changed, add_space_prefix=False)
        run("spm-noprefix", changed)

    for real in args.real:
        name, path = real.split("=", 1)
        run(f"real/{name}", path)
    del log


if __name__ == "__main__":
    main()
