// Splits texts with llama.cpp's own function: make.py compiles it together with llama.cpp's unicode.cpp.
//
// stdin: a line "R HEX" adds a regex, "C" removes all of them, "T HEX" splits a text.
// stdout: for each text, the words that are not empty, in hexadecimal, with blanks between them.
#include "unicode.h"

#include <iostream>
#include <string>
#include <vector>

static std::string bytes(const std::string & hex) {
    std::string out;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        out.push_back((char) std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return out;
}

int main() {
    std::vector<std::string> regexes;
    std::string line;
    while (std::getline(std::cin, line)) {
        const std::string text = line.size() > 2 ? bytes(line.substr(2)) : "";
        if (line[0] == 'C') {
            regexes.clear();
        } else if (line[0] == 'R') {
            regexes.push_back(text);
        } else {
            bool first = true;
            for (const auto & word : unicode_regex_split(text, regexes, false)) {
                if (word.empty()) {
                    continue;
                }
                if (!first) {
                    putchar(' ');
                }
                first = false;
                for (unsigned char byte : word) {
                    printf("%02x", byte);
                }
            }
            putchar('\n');
        }
    }
}
