module rota.dev/bench/peers/load

go 1.25
