<?php
// Print one sale with escpos-php, and keep its bytes in the folder of the first argument. The second is
// the folder of the library's sources.
$sources = $argv[2];
spl_autoload_register(function ($name) use ($sources) {
    $file = $sources . '/' . str_replace('\\', '/', $name) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

use Mike42\Escpos\CapabilityProfile;
use Mike42\Escpos\PrintConnectors\DummyPrintConnector;
use Mike42\Escpos\Printer;

function sale(string $profile, string $shop, string $name): string
{
    $kept = new DummyPrintConnector();
    $printer = new Printer($kept, CapabilityProfile::load($profile));
    $printer->setJustification(Printer::JUSTIFY_CENTER);
    $printer->setEmphasis(true);
    $printer->text($shop . "\n");
    $printer->setEmphasis(false);
    $printer->setJustification();
    $lines = ['RECEIPT NO 0001', '25/11/2026 10:15', str_repeat('-', 32), 'SODA 500ML              120.00 V',
        '  2 x 60.00'];
    foreach ($lines as $line) {
        $printer->text($line . "\n");
    }
    $printer->text($name . str_repeat(' ', 25 - mb_strlen($name)) . "65.00 Z\n");
    $printer->text('TOTAL' . str_repeat(' ', 21) . "185.00\n");
    $printer->text('M-PESA' . str_repeat(' ', 20) . "185.00\n");
    $printer->barcode('0001', Printer::BARCODE_CODE39);
    $printer->text("THANK YOU\n");
    $printer->pulse();
    $printer->cut();
    $data = $kept->getData();
    $printer->close();
    return $data;
}

file_put_contents($argv[1] . '/escpos-php.bin', sale('simple', 'MAMA MBOGA STORES', 'BREAD 400G'));
file_put_contents($argv[1] . '/escpos-php-accents.bin', sale('default', 'MAMA MBOGA STORES', 'CAFÉ “400G”'));
