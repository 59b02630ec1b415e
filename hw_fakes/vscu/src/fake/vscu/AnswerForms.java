package fake.vscu;

import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;

/** The forms in which some builds, proxies or locales may write an answer to a sale (knob `answerForm`). */
final class AnswerForms {
    static final String NAMES = "plain bom blanks nul utf16 latin1 codeBlank codeNumber numbersText "
        + "dashed slashed dayFirst isoOffset";

    private AnswerForms() {
    }

    static boolean knows(String form) {
        return (" " + NAMES + " ").contains(" " + form + " ");
    }

    /** The bytes of `text`, an envelope as Json.write makes it. */
    static byte[] bytes(String form, String text) {
        switch (form) {
            case "bom":
                return utf8("\ufeff" + text);
            case "blanks":
                return utf8("\r\n \t" + text + "\r\n\r\n");
            case "nul":
                return utf8(text + "\0");
            case "utf16":
                return ("\ufeff" + text).getBytes(Charset.forName("UTF-16LE"));
            case "latin1":
                return text.replace("It is succeeded", "C'est r\u00e9ussi")
                    .getBytes(StandardCharsets.ISO_8859_1);
            case "codeBlank":
                return utf8(text.replaceFirst("(\"resultCd\":\"[^\"]*)\"", "$1 \""));
            case "codeNumber":
                return utf8(text.replaceFirst("\"resultCd\":\"0+\"", "\"resultCd\":0"));
            case "numbersText":
                return utf8(text.replaceAll("\"((?:tot)?[rR]cptNo)\":(\\d+)", "\"$1\":\"$2\""));
            case "dashed":
                return utf8(dated(text, "$1-$2-$3 $4:$5:$6"));
            case "slashed":
                return utf8(dated(text, "$1/$2/$3 $4:$5:$6"));
            case "dayFirst":
                return utf8(dated(text, "$3/$2/$1 $4:$5:$6"));
            case "isoOffset":
                return utf8(dated(text, "$1-$2-$3T$4:$5:$6.000+03:00"));
            default:
                return utf8(text);
        }
    }

    private static String dated(String text, String form) {
        return text.replaceAll(
            "(?<=\"vsdcRcptPbctDate\":\")(\\d{4})(\\d\\d)(\\d\\d)(\\d\\d)(\\d\\d)(\\d\\d)", form);
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
