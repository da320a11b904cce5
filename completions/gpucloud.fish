function _gpucloud_completion;
    set -l response (env _GPUCLOUD_COMPLETE=complete_fish COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) gpucloud);

    for completion in $response;
        set -l metadata (string split "," $completion);

        if test $metadata[1] = "dir";
            __complete_fish_directories $metadata[2];
        else if test $metadata[1] = "file";
            __complete_fish_path $metadata[2];
        else if test $metadata[1] = "plain";
            echo $metadata[2];
        end;
    end;
end;

complete --no-files --command gpucloud --arguments "(_gpucloud_completion)";
